"""The version of the installed library; MODULE.bazel repeats it."""

VERSION = "0.1.0"
