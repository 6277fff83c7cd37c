"""C++ from .proto files that define services: messages, clients and service bases."""

load("//bazel:proto.bzl", "system_cc_proto")
load("@rules_cc//cc:defs.bzl", "cc_library")

def verbena_rpc_library(name, srcs, deps = [], visibility = None, testonly = False):
    """Generates and compiles the C++ of services.

    Args:
      name: a cc_library; include its headers as "<package>/<file>.verbena.h".
      srcs: .proto files of this package, imported by their workspace path.
      deps: system_cc_proto targets that srcs import, e.g. "//proto:bulk".
      visibility: of the library.
      testonly: as of any rule.
    """
    system_cc_proto(
        name = name + "_messages",
        srcs = srcs,
        deps = deps,
        visibility = visibility,
    )
    stems = [s[:-len(".proto")] for s in srcs]
    verbena_rpc_headers(
        name = name + "_verbena",
        srcs = srcs,
        protos = ":%s_messages_protos" % name,
    )
    cc_library(
        name = name,
        testonly = testonly,
        hdrs = [s + ".verbena.h" for s in stems],
        visibility = visibility,
        deps = [
            ":%s_messages" % name,
            "//rpc",
        ],
    )

def verbena_rpc_headers(name, srcs, protos, visibility = None):
    """Generates "<package>/<file>.verbena.h", and compiles nothing.

    Args:
      name: of the rule.
      srcs: .proto files of this package.
      protos: a target with them and all that they import.
      visibility: of the headers.
    """
    native.genrule(
        name = name,
        srcs = [protos],
        outs = [s[:-len(".proto")] + ".verbena.h" for s in srcs],
        cmd = "protoc --proto_path=. --plugin=protoc-gen-verbena=" +
              "$(execpath //rpc/plugin:protoc-gen-verbena) --verbena_out=$(GENDIR) " +
              " ".join([native.package_name() + "/" + s for s in srcs]),
        tools = ["//rpc/plugin:protoc-gen-verbena"],
        visibility = visibility,
    )
