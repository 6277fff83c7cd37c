// SPDX-License-Identifier: Apache-2.0
// protoc-gen-verbena: from `service` in FILE.proto to FILE.verbena.h.
//
//   protoc --plugin=protoc-gen-verbena=PATH --cpp_out=DIR --verbena_out=DIR FILE.proto
//
// For each service a struct of its name: its methods' descriptions, Client, and three bases to
// derive a server's side from: Service (blocking), AsyncService (callbacks), CoService
// (coroutines).
#include <google/protobuf/compiler/code_generator.h>
#include <google/protobuf/compiler/plugin.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/io/printer.h>
#include <google/protobuf/io/zero_copy_stream.h>

#include <map>
#include <memory>
#include <string>

namespace verbena::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using google::protobuf::io::Printer;
using Words = std::map<std::string, std::string>;

std::string Replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
  return text;
}

std::string WithoutProto(const std::string& file) { return file.substr(0, file.rfind(".proto")); }

// As protoc's C++ has it: ::package::Outer_Inner.
std::string CppName(const Descriptor* message) {
  const std::string package = message->file()->package();
  const size_t skip = package.empty() ? 0 : package.size() + 1;
  const std::string inside = Replaced(message->full_name().substr(skip), ".", "_");
  return "::" + (package.empty() ? "" : Replaced(package, ".", "::") + "::") + inside;
}

bool MayRepeat(const MethodDescriptor* method) {
  return method->options().idempotency_level() !=
         google::protobuf::MethodOptions::IDEMPOTENCY_UNKNOWN;
}

Words WordsOf(const MethodDescriptor* method) {
  return {{"method", method->name()},
          {"request", CppName(method->input_type())},
          {"response", CppName(method->output_type())},
          {"path", "/" + method->service()->full_name() + "/" + method->name()},
          {"repeat", MayRepeat(method) ? "true" : "false"}};
}

void PrintClient(const ServiceDescriptor* service, Printer& out) {
  out.Print(
      "\n  // Of one server; any thread, any number at once. Co…: co_await it.\n"
      "  class Client {\n"
      "   public:\n"
      "    explicit Client(verbena::rpc::Channel& channel) : channel_(&channel) {}\n");
  for (int i = 0; i < service->method_count(); ++i) {
    out.Print(WordsOf(service->method(i)),
              "\n"
              "    absl::StatusOr<$response$> $method$(\n"
              "        const $request$& request, verbena::rpc::ClientContext& context) const {\n"
              "      return verbena::rpc::CallAndWait<$response$>(*channel_, k$method$, request, "
              "context);\n"
              "    }\n"
              "    absl::StatusOr<$response$> $method$(const $request$& request) const {\n"
              "      verbena::rpc::ClientContext context;\n"
              "      return $method$(request, context);\n"
              "    }\n"
              "    void $method$(const $request$& request, verbena::rpc::ClientContext& context,\n"
              "        verbena::rpc::Callback<$response$> done) const {\n"
              "      verbena::rpc::CallThen<$response$>(*channel_, k$method$, request, context, "
              "std::move(done));\n"
              "    }\n"
              "    verbena::rpc::CallAwaiter<$response$> Co$method$(\n"
              "        const $request$& request, verbena::rpc::ClientContext& context) const {\n"
              "      return {*channel_, k$method$, request, context};\n"
              "    }\n");
  }
  out.Print(
      "\n   private:\n"
      "    verbena::rpc::Channel* channel_;\n"
      "  };\n");
}

// `virtual`, with $method$ and so on; `call` passes a call on to it.
void PrintBase(const ServiceDescriptor* service, Printer& out, const std::string& name,
               const std::string& maker, const char* method, const char* call) {
  out.Print({{"name", name}},
            "\n  class $name$ : public verbena::rpc::Service {\n"
            "   public:\n");
  for (int i = 0; i < service->method_count(); ++i) {
    out.Print(WordsOf(service->method(i)), method);
  }
  out.Print(
      "\n    std::vector<verbena::rpc::Handler> handlers() final {\n"
      "      return {\n");
  for (int i = 0; i < service->method_count(); ++i) {
    Words words = WordsOf(service->method(i));
    words["maker"] = maker;
    out.Print(words, "        verbena::rpc::$maker$<$request$, $response$>(k$method$,\n");
    out.Print(words, call);
  }
  out.Print(
      "      };\n"
      "    }\n"
      "  };\n");
}

void PrintService(const ServiceDescriptor* service, Printer& out) {
  out.Print({{"service", service->name()}}, "\nstruct $service$ {\n");
  for (int i = 0; i < service->method_count(); ++i) {
    out.Print(WordsOf(service->method(i)),
              "  static constexpr verbena::rpc::Method k$method${\"$path$\", $repeat$};\n");
  }
  PrintClient(service, out);
  PrintBase(service, out, "Service", "BlockingHandler",
            "    virtual absl::StatusOr<$response$> $method$(\n"
            "        verbena::rpc::ServerContext&, const $request$&) {\n"
            "      return absl::UnimplementedError(\"$path$ is not implemented\");\n"
            "    }\n",
            "            [this](verbena::rpc::ServerContext& context, const $request$& request) {\n"
            "              return this->$method$(context, request);\n"
            "            }),\n");
  PrintBase(service, out, "AsyncService", "AsyncHandler",
            "    virtual void $method$(verbena::rpc::ServerCall<$request$, $response$> call) {\n"
            "      call.Finish(absl::UnimplementedError(\"$path$ is not implemented\"));\n"
            "    }\n",
            "            [this](verbena::rpc::ServerCall<$request$, $response$> call) {\n"
            "              this->$method$(std::move(call));\n"
            "            }),\n");
  PrintBase(service, out, "CoService", "CoroutineHandler",
            "    virtual verbena::rpc::Task<absl::StatusOr<$response$>> $method$(\n"
            "        verbena::rpc::ServerContext&, const $request$&) {\n"
            "      co_return absl::UnimplementedError(\"$path$ is not implemented\");\n"
            "    }\n",
            "            [this](verbena::rpc::ServerContext& context, const $request$& request) {\n"
            "              return this->$method$(context, request);\n"
            "            }),\n");
  out.Print("};\n");
}

class Generator final : public google::protobuf::compiler::CodeGenerator {
 public:
  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }

  bool Generate(const FileDescriptor* file, const std::string&,
                google::protobuf::compiler::GeneratorContext* context,
                std::string* error) const override {
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        const MethodDescriptor* method = file->service(i)->method(j);
        if (!method->client_streaming() && !method->server_streaming()) continue;
        *error = method->full_name() +
                 ": protoc-gen-verbena makes no streams yet; return a page "
                 "and a token for the next, or pass bulk data as a verbena.rpc.BulkHandle";
        return false;
      }
    }
    const std::string stem = WithoutProto(file->name());
    const std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> stream(
        context->Open(stem + ".verbena.h"));
    Printer out(stream.get(), '$');
    out.Print({{"proto", file->name()}, {"stem", stem}},
              "// Made by protoc-gen-verbena from $proto$. Do not edit.\n"
              "#pragma once\n\n"
              "#include <utility>\n#include <vector>\n\n"
              "#include \"absl/status/statusor.h\"\n"
              "#include \"$stem$.pb.h\"\n"
              "#include \"rpc/client.h\"\n"
              "#include \"rpc/service.h\"\n");
    const std::string space = Replaced(file->package(), ".", "::");
    if (!space.empty()) out.Print({{"space", space}}, "\nnamespace $space$ {\n");
    for (int i = 0; i < file->service_count(); ++i) PrintService(file->service(i), out);
    if (!space.empty()) out.Print({{"space", space}}, "\n}  // namespace $space$\n");
    return true;
  }
};

}  // namespace
}  // namespace verbena::rpc

int main(int argc, char** argv) {
  const verbena::rpc::Generator generator;
  return google::protobuf::compiler::PluginMain(argc, argv, &generator);
}
