"""A test that runs a script: sh_test left Bazel itself with Bazel 8."""

def _script_test_impl(ctx):
    exe = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = exe, target_file = ctx.file.src, is_executable = True)
    runfiles = ctx.runfiles(files = ctx.files.data + [ctx.file.src])
    for d in ctx.attr.data:
        runfiles = runfiles.merge(d[DefaultInfo].default_runfiles)
    return [DefaultInfo(executable = exe, runfiles = runfiles)]

# With `args = ["$(location :tool)"]` and `data = [":tool"]`, like sh_test. The
# script (bash or python3, by its #! line) must have its executable bit set.
script_test = rule(
    implementation = _script_test_impl,
    attrs = {
        "data": attr.label_list(allow_files = True),
        "src": attr.label(allow_single_file = True, mandatory = True),
    },
    test = True,
)

def py_unittest(name, src, data = [], size = "small", tags = [], **kwargs):
    """A file of python3 unittest cases that ends in unittest.main().

    Sources say nothing different under a sanitizer, so those builds skip it.
    """
    script_test(
        name = name,
        src = src,
        data = data,
        size = size,
        tags = tags + ["no_sanitizer"],
        **kwargs
    )
