"""The C++ rules with this project's flags; BUILD files load these only."""

load("@rules_cc//cc:defs.bzl", _cc_binary = "cc_binary", _cc_library = "cc_library", _cc_test = "cc_test")

COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wnon-virtual-dtor",
    "-Woverloaded-virtual",
    "-fno-strict-aliasing",
]

def cc_library(copts = [], **kwargs):
    _cc_library(copts = COPTS + copts, **kwargs)

def cc_binary(copts = [], **kwargs):
    _cc_binary(copts = COPTS + copts, **kwargs)

def cc_test(copts = [], deps = [], size = "small", main = True, **kwargs):
    """A gtest binary.

    Args:
      copts: added to the project's.
      deps: beside gtest, which each test gets.
      size: small (60 s), medium (300 s), large (900 s).
      main: False when srcs or deps bring their own main().
      **kwargs: of cc_test.
    """
    _cc_test(
        copts = COPTS + copts,
        size = size,
        deps = deps + ["//third_party/system:gtest_main" if main else "//third_party/system:gtest"],
        **kwargs
    )

def cc_benchmark(name, srcs, deps = [], tags = [], **kwargs):
    """A Google Benchmark binary, and a test that runs each benchmark once."""
    _cc_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        copts = COPTS,
        tags = tags,
        deps = deps + ["//third_party/system:benchmark"],
        **kwargs
    )
    _cc_test(
        name = name + "_smoke_test",
        size = "small",
        srcs = srcs,
        args = ["--benchmark_min_time=0.001"],
        copts = COPTS,
        tags = tags,
        deps = deps + ["//third_party/system:benchmark"],
    )

def cc_fuzz(name, srcs, corpus = [], deps = [], **kwargs):
    """LLVMFuzzerTestOneInput: libFuzzer under --config=fuzz, else a corpus replay test."""
    _cc_test(
        name = name,
        size = "small",
        srcs = srcs,
        args = select({
            "//:fuzzing": ["-runs=10000"],
            "//conditions:default": ["$(locations %s)" % c for c in corpus],
        }),
        copts = COPTS,
        data = corpus,
        linkopts = select({
            "//:fuzzing": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + select({
            "//:fuzzing": [],
            "//conditions:default": ["//bazel:replay_main"],
        }),
        **kwargs
    )

def cc_versioned_shared_library(name, soname, version_script, srcs, copts = [], linkopts = [], deps = [], **kwargs):
    """A shared object `name` with an soname and a linker version script."""
    _cc_binary(
        name = name,
        srcs = srcs,
        additional_linker_inputs = [version_script],
        copts = COPTS + ["-fPIC"] + copts,
        linkopts = [
            "-Wl,-soname," + soname,
            "-Wl,--version-script=$(location %s)" % version_script,
        ] + select({
            # clang leaves the sanitizers' symbols to the executable.
            "//:sanitizer": [],
            "//conditions:default": ["-Wl,-z,defs"],
        }) + linkopts,
        linkshared = True,
        linkstatic = True,
        deps = deps,
        **kwargs
    )
