"""@system: the system libraries the project links, found through pkg-config."""

# target -> pkg-config modules
PACKAGES = {
    "absl_bits": ["absl_bits"],
    "absl_cleanup": ["absl_cleanup"],
    "absl_core_headers": ["absl_core_headers"],
    "absl_endian": ["absl_endian"],
    "absl_flags": ["absl_flags"],
    "absl_flags_parse": ["absl_flags_parse"],
    "absl_flags_usage": ["absl_flags_usage"],
    "absl_flat_hash_map": ["absl_flat_hash_map"],
    "absl_flat_hash_set": ["absl_flat_hash_set"],
    "absl_function_ref": ["absl_function_ref"],
    "absl_hash": ["absl_hash"],
    "absl_inlined_vector": ["absl_inlined_vector"],
    "absl_random_random": ["absl_random_random"],
    "absl_span": ["absl_span"],
    "absl_status": ["absl_status"],
    "absl_statusor": ["absl_statusor"],
    "absl_str_format": ["absl_str_format"],
    "absl_strings": ["absl_strings"],
    "absl_synchronization": ["absl_synchronization"],
    "absl_time": ["absl_time"],
    "benchmark": ["benchmark"],
    "curl": ["libcurl"],
    "fabric": ["libfabric"],
    "gmock": ["gmock"],
    "grpc": ["grpc++"],
    "gtest": ["gtest"],
    "gtest_main": ["gtest_main"],
    "ibverbs": ["libibverbs"],
    "isal": ["libisal"],
    "mpi": ["ompi-c"],
    "nbdkit": ["nbdkit"],
    "openssl": ["openssl"],
    "protobuf": ["protobuf"],
    "pybind11": ["pybind11", "python3"],
    "rdmacm": ["librdmacm"],
    "uring": ["liburing"],
}

# Without one of these its target is empty; with it, HAVE_ and its name are defined.
OPTIONAL = ["fabric", "grpc", "mpi"]

_HEADER = """\
load("@rules_cc//cc:defs.bzl", "cc_library")

package(default_visibility = ["//visibility:public"])
"""

_FOUND = """
cc_library(
    name = "{name}",
    hdrs = glob(["include/{name}/**"], allow_empty = True),
    defines = {defines},
    includes = {includes},
    linkopts = {linkopts},
)
"""

_ABSENT = """
cc_library(name = "{name}")
"""

# A missing library fails only the targets that need it, and says why.
_MISSING = """
genrule(
    name = "{name}_missing",
    outs = ["{name}_missing.h"],
    cmd = "echo >&2 'system library {name}: pkg-config knows no {modules}; run tools/setup, then bazel sync --configure'; exit 1",
    tags = ["manual"],
)

cc_library(
    name = "{name}",
    hdrs = ["{name}_missing.h"],
    tags = ["manual"],
)
"""

def _pkg_config(rctx, tool, args):
    result = rctx.execute([tool] + args)
    if result.return_code:
        return None
    return [flag for flag in result.stdout.replace("\n", " ").split(" ") if flag]

def _system_repository_impl(rctx):
    tool = rctx.which("pkg-config")
    out = [_HEADER]
    for name, modules in sorted(rctx.attr.packages.items()):
        cflags = _pkg_config(rctx, tool, ["--cflags"] + modules) if tool else None
        libs = _pkg_config(rctx, tool, ["--libs"] + modules) if tool else None
        if (cflags == None or libs == None) and name in OPTIONAL:
            out.append(_ABSENT.format(name = name))
            continue
        if cflags == None or libs == None:
            out.append(_MISSING.format(name = name, modules = " ".join(modules)))
            continue
        defines = ["HAVE_" + name.upper()] if name in OPTIONAL else []
        includes = []
        for flag in cflags:
            if flag.startswith("-D"):
                defines.append(flag[2:])
            elif flag.startswith("-I"):
                link = "include/%s/%d" % (name, len(includes))
                rctx.symlink(flag[2:], link)
                includes.append(link)
        out.append(_FOUND.format(
            name = name,
            defines = repr(defines),
            includes = repr(includes),
            linkopts = repr(libs),
        ))
    rctx.file("BUILD.bazel", "".join(out), executable = False)

system_repository = repository_rule(
    implementation = _system_repository_impl,
    attrs = {"packages": attr.string_list_dict(default = PACKAGES)},
    configure = True,
    environ = ["PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"],
    local = True,
)
