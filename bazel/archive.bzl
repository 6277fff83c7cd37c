"""One static archive from a cc_library and everything of ours below it."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("//bazel:system.bzl", "PACKAGES")

StaticArchiveInfo = provider(
    doc = "What an installer needs to know about a merged archive.",
    fields = {
        "archive": "the lib*.a file",
        "modules": "pkg-config modules of the system libraries it leaves undefined",
    },
)

def _static_archive_impl(ctx):
    archives = []
    modules = []
    elsewhere = {}
    if ctx.attr.without:
        for linker_input in ctx.attr.without[CcInfo].linking_context.linker_inputs.to_list():
            elsewhere[linker_input.owner] = True
    for linker_input in ctx.attr.dep[CcInfo].linking_context.linker_inputs.to_list():
        owner = linker_input.owner
        if owner in elsewhere:
            continue

        # "system" in a WORKSPACE, "_main~system~system" in a module.
        if owner.workspace_name.endswith("system"):
            modules += [m for m in PACKAGES.get(owner.name, []) if m not in modules]
            continue
        for library in linker_input.libraries:
            # Position independent when there is a choice: users link shared objects too.
            archive = library.pic_static_library or library.static_library
            if archive and archive not in archives:
                archives.append(archive)
    if not archives:
        fail("%s: %s has no object files to merge" % (ctx.label, ctx.attr.dep.label))

    out = ctx.actions.declare_file(ctx.attr.archive)
    script = ctx.actions.declare_file(ctx.label.name + ".mri")
    lines = ["create " + out.path] + ["addlib " + a.path for a in archives] + ["save", "end"]
    ctx.actions.write(script, "\n".join(lines) + "\n")
    ctx.actions.run_shell(
        inputs = depset(archives + [script], transitive = [find_cpp_toolchain(ctx).all_files]),
        outputs = [out],
        command = '"$1" -M <"$2"',
        arguments = [find_cpp_toolchain(ctx).ar_executable, script.path],
        mnemonic = "MergeArchives",
        progress_message = "Merging %d archives into %s" % (len(archives), ctx.attr.archive),
    )
    return [
        DefaultInfo(files = depset([out])),
        StaticArchiveInfo(archive = out, modules = sorted(modules)),
    ]

static_archive = rule(
    implementation = _static_archive_impl,
    attrs = {
        "archive": attr.string(mandatory = True),
        "dep": attr.label(mandatory = True, providers = [CcInfo]),
        # Its objects, and all below it, are in another archive; so are its modules.
        "without": attr.label(providers = [CcInfo]),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)
