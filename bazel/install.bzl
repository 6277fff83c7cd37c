"""`bazel run -c opt //:install -- PREFIX`, without rules_pkg."""

load("//bazel:archive.bzl", "StaticArchiveInfo")

_HEAD = """\
#!/bin/sh
set -eu
if [ $# -ne 1 ]; then
  echo "install: one argument is needed, the folder to install into, e.g. /usr/local" >&2
  exit 2
fi
# `bazel run` starts in the runfiles folder but means the caller's; a test starts in its own.
case $1 in /*) prefix=$1 ;; *) prefix=${BUILD_WORKING_DIRECTORY:-$PWD}/$1 ;; esac
if [ -d "$0.runfiles/@WORKSPACE@" ]; then cd "$0.runfiles/@WORKSPACE@"; fi
root=${DESTDIR:-}$prefix
put() {  # MODE SOURCE DESTINATION, relative to the prefix
  install -D -m "$1" "$2" "$root/$3" || {
    echo "install: cannot write $root/$3; choose a folder that you may write to, or use sudo" >&2
    exit 1
  }
}
"""

def _install_impl(ctx):
    script = [_HEAD.replace("@WORKSPACE@", ctx.workspace_name)]
    runfiles = []

    substitutions = {"@VERSION@": ctx.attr.version}
    for target, word in ctx.attr.archives.items():
        info = target[StaticArchiveInfo]
        runfiles.append(info.archive)
        script.append('put 644 "%s" "lib/%s"' % (info.archive.short_path, info.archive.basename))
        substitutions[word] = " ".join(info.modules)

    for target, subdir in ctx.attr.files.items():
        for f in target.files.to_list():
            runfiles.append(f)
            mode = "755" if (subdir == "bin" or ".so" in f.basename) else "644"
            script.append('put %s "%s" "%s/%s"' % (mode, f.short_path, subdir, f.basename))

    for target, dest in ctx.attr.templates.items():
        for f in target.files.to_list():
            expanded = ctx.actions.declare_file("%s/%s" % (ctx.label.name + ".templates", dest))
            ctx.actions.expand_template(
                template = f,
                output = expanded,
                substitutions = substitutions,
            )
            runfiles.append(expanded)
            script.append('put 644 "%s" "%s"' % (expanded.short_path, dest))

    for link, to in ctx.attr.links.items():
        script.append('ln -sf "%s" "$root/%s"' % (to, link))
    script.append('echo "installed into $root"')

    exe = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(exe, "\n".join(script) + "\n", is_executable = True)
    return [DefaultInfo(
        executable = exe,
        runfiles = ctx.runfiles(files = runfiles),
    )]

install = rule(
    implementation = _install_impl,
    attrs = {
        # archive -> what stands for its pkg-config modules in the templates
        "archives": attr.label_keyed_string_dict(
            mandatory = True,
            providers = [StaticArchiveInfo],
        ),
        # label of files -> folder below the prefix
        "files": attr.label_keyed_string_dict(allow_files = True),
        # link below the prefix -> what it points at
        "links": attr.string_dict(),
        # label of a template -> its place below the prefix
        "templates": attr.label_keyed_string_dict(allow_files = True),
        "version": attr.string(mandatory = True),
    },
    executable = True,
)
