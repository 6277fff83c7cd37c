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
  return {
      {"method", method->name()},
      {"request", CppName(method->input_type())},
      {"response", CppName(method->output_type())},
      {"path", "/" + method->service()->full_name() + "/" + method->name()},
      {"repeat", MayRepeat(method) ? "true" : "false"},
      {"stream", "verbena::rpc::ServerStream<" + CppName(method->input_type()) + ", " +
                     CppName(method->output_type()) + ">"},
      // A handler of a stream: what it gets of the request, and what it returns.
      {"parameter",
       method->client_streaming() ? "" : "const " + CppName(method->input_type()) + "& request, "},
      {"argument", method->client_streaming() ? "" : "request, "},
      {"anonymous",
       method->client_streaming() ? "" : "const " + CppName(method->input_type()) + "&, "},
      {"first", method->client_streaming() ? CppName(method->input_type()) + "()" : "request"},
      {"result", method->server_streaming()
                     ? "absl::Status"
                     : "absl::StatusOr<" + CppName(method->output_type()) + ">"}};
}

bool IsStream(const MethodDescriptor* method) {
  return method->client_streaming() || method->server_streaming();
}

void PrintClient(const ServiceDescriptor* service, Printer& out) {
  out.Print(
      "\n  // Of one server; any thread, any number at once. Co…: co_await it.\n"
      "  class Client {\n"
      "   public:\n"
      "    explicit Client(verbena::rpc::Channel& channel) : channel_(&channel) {}\n");
  for (int i = 0; i < service->method_count(); ++i) {
    if (IsStream(service->method(i))) {
      out.Print(
          WordsOf(service->method(i)),
          "\n"
          "    std::unique_ptr<verbena::rpc::ClientStream<$request$, $response$>> $method$(\n"
          "        $parameter$verbena::rpc::ClientContext& context) const {\n"
          "      return std::make_unique<verbena::rpc::ClientStream<$request$, $response$>>(\n"
          "          *channel_, k$method$, $first$, context);\n"
          "    }\n");
      continue;
    }
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

// How one face of a service looks: its handlers' makers, the methods to override, and the lambdas
// that pass a call on to them; each for a call of one message each way, and for streams.
struct Face {
  const char* name;
  const char* maker;
  const char* method;
  const char* call;
  const char* stream_maker;
  const char* stream_method;
};

constexpr char kPassRequest[] =
    "            [this](verbena::rpc::ServerContext& context, const $request$& request) {\n"
    "              return this->$method$(context, request);\n"
    "            }),\n";
constexpr char kPassStream[] =
    "            [this](verbena::rpc::ServerContext& context,\n"
    "                   [[maybe_unused]] const $request$& request, $stream$& stream) {\n"
    "              return this->$method$(context, $argument$stream);\n"
    "            }),\n";
constexpr char kStreamTask[] =
    "    virtual verbena::rpc::Task<$result$> $method$(\n"
    "        verbena::rpc::ServerContext&, $anonymous$$stream$&) {\n"
    "      co_return absl::UnimplementedError(\"$path$ is not implemented\");\n"
    "    }\n";

constexpr Face kFaces[] = {
    {"Service", "BlockingHandler",
     "    virtual absl::StatusOr<$response$> $method$(\n"
     "        verbena::rpc::ServerContext&, const $request$&) {\n"
     "      return absl::UnimplementedError(\"$path$ is not implemented\");\n"
     "    }\n",
     kPassRequest, "BlockingStreamHandler",
     "    virtual $result$ $method$(verbena::rpc::ServerContext&, $anonymous$$stream$&) {\n"
     "      return absl::UnimplementedError(\"$path$ is not implemented\");\n"
     "    }\n"},
    {"AsyncService", "AsyncHandler",
     "    virtual void $method$(verbena::rpc::ServerCall<$request$, $response$> call) {\n"
     "      call.Finish(absl::UnimplementedError(\"$path$ is not implemented\"));\n"
     "    }\n",
     "            [this](verbena::rpc::ServerCall<$request$, $response$> call) {\n"
     "              this->$method$(std::move(call));\n"
     "            }),\n",
     "CoroutineStreamHandler", kStreamTask},
    {"CoService", "CoroutineHandler",
     "    virtual verbena::rpc::Task<absl::StatusOr<$response$>> $method$(\n"
     "        verbena::rpc::ServerContext&, const $request$&) {\n"
     "      co_return absl::UnimplementedError(\"$path$ is not implemented\");\n"
     "    }\n",
     kPassRequest, "CoroutineStreamHandler", kStreamTask},
};

void PrintBase(const ServiceDescriptor* service, Printer& out, const Face& face) {
  out.Print({{"name", face.name}},
            "\n  class $name$ : public verbena::rpc::Service {\n"
            "   public:\n");
  for (int i = 0; i < service->method_count(); ++i) {
    const MethodDescriptor* method = service->method(i);
    out.Print(WordsOf(method), IsStream(method) ? face.stream_method : face.method);
  }
  out.Print(
      "\n    std::vector<verbena::rpc::Handler> handlers() final {\n"
      "      return {\n");
  for (int i = 0; i < service->method_count(); ++i) {
    const MethodDescriptor* method = service->method(i);
    Words words = WordsOf(method);
    words["maker"] = IsStream(method) ? face.stream_maker : face.maker;
    out.Print(words, "        verbena::rpc::$maker$<$request$, $response$>(k$method$,\n");
    out.Print(words, IsStream(method) ? kPassStream : face.call);
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
  for (const Face& face : kFaces) PrintBase(service, out, face);
  out.Print("};\n");
}

class Generator final : public google::protobuf::compiler::CodeGenerator {
 public:
  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }

  bool Generate(const FileDescriptor* file, const std::string&,
                google::protobuf::compiler::GeneratorContext* context,
                std::string*) const override {
    const std::string stem = WithoutProto(file->name());
    const std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> stream(
        context->Open(stem + ".verbena.h"));
    Printer out(stream.get(), '$');
    out.Print({{"proto", file->name()}, {"stem", stem}},
              "// Made by protoc-gen-verbena from $proto$. Do not edit.\n"
              "#pragma once\n\n"
              "#include <memory>\n#include <utility>\n#include <vector>\n\n"
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
