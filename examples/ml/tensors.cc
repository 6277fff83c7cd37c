// SPDX-License-Identifier: Apache-2.0
// A store of named tensors, and what a shell wants of one.
//   tensors serve [HOST:7600]
//   tensors HOST:7600 list [PREFIX] | put NAME DTYPE 2x3 FILE | add NAME DTYPE 2x3 FILE
//                     | get NAME FILE | delete NAME
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "examples/check.h"
#include "examples/ml/tensor_client.h"
#include "examples/ml/tensor_server.h"
#include "rpc/server.h"

namespace {

constexpr uint64_t kMostBytes = uint64_t{16} << 30;
constexpr int kHandlers = 8;  // each moves one tensor at a time

int Usage() {
  fprintf(stderr,
          "usage: tensors serve [HOST:7600]\n"
          "       tensors HOST:7600 list [PREFIX]\n"
          "       tensors HOST:7600 put|add NAME DTYPE SHAPE FILE    a shape is 2x3\n"
          "       tensors HOST:7600 get NAME FILE\n"
          "       tensors HOST:7600 delete NAME\n");
  return 2;
}

int Serve(const std::string& address) {
  sigset_t ends;  // before the server's threads start, which so leave them to sigwait()
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  ml::TensorServer tensors(kMostBytes);
  auto server = Check(verbena::rpc::Server::Open({.handler_threads = kHandlers}));
  Check(server->Add(tensors));
  Check(server->Start(address));
  printf("serving tensors on port %d\n", server->port());
  fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
  if (!server->Shutdown(absl::Seconds(5)).ok()) fprintf(stderr, "some calls were cancelled\n");
  return 0;
}

void Print(const ml::Described& tensor) {
  printf("%s %s %s version %llu\n", tensor.name.c_str(), ml::NameOf(tensor.dtype),
         tensor.shape.empty() ? "scalar" : absl::StrJoin(tensor.shape, "x").c_str(),
         static_cast<unsigned long long>(tensor.version));
}

std::vector<uint64_t> ParseShape(const std::string& text) {
  std::vector<uint64_t> shape;
  if (text == "scalar") return shape;
  for (const auto& part : absl::StrSplit(text, 'x')) {
    if (!absl::SimpleAtoi(part, &shape.emplace_back())) {
      Check(absl::InvalidArgumentError("a shape is numbers with x between them, not " + text));
    }
  }
  return shape;
}

std::vector<char> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Check(absl::NotFoundError("cannot read " + path));
  return {std::istreambuf_iterator<char>(file), {}};
}

void Get(ml::Tensors& tensors, const std::string& name, const std::string& path) {
  const ml::Described now = Check(tensors.Describe(name));
  size_t bytes = ml::SizeOf(now.dtype);
  for (const uint64_t dimension : now.shape) bytes *= dimension;
  std::vector<char> elements(bytes);
  Print(
      Check(tensors.Get(name, now.dtype, now.shape, std::as_writable_bytes(std::span(elements)))));
  std::ofstream file(path, std::ios::binary);
  file.write(elements.data(), static_cast<std::streamsize>(elements.size()));
  if (!file.flush()) Check(absl::UnavailableError("cannot write " + path));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty() || (args[0] != "serve" && args.size() < 2)) return Usage();
  if (args[0] == "serve") return Serve(args.size() > 1 ? args[1] : "[::]:7600");

  auto tensors = Check(ml::Tensors::Open(args[0]));
  const std::string& what = args[1];
  if (what == "list") {
    for (const auto& each : Check(tensors->List(args.size() > 2 ? args[2] : ""))) Print(each);
  } else if ((what == "put" || what == "add") && args.size() == 6) {
    const auto dtype = ml::DtypeNamed(args[3]);
    if (!dtype.has_value()) Check(absl::InvalidArgumentError("no dtype is called " + args[3]));
    const auto elements = ReadFile(args[5]);
    const auto bytes = std::as_bytes(std::span(elements));
    const auto shape = ParseShape(args[4]);
    if (what == "put") {
      Print(Check(tensors->Put(args[2], *dtype, shape, bytes)));
    } else {
      Print(Check(tensors->Accumulate(args[2], *dtype, shape, bytes)));
    }
  } else if (what == "get" && args.size() == 4) {
    Get(*tensors, args[2], args[3]);
  } else if (what == "delete" && args.size() == 3) {
    Check(tensors->Delete(args[2]));
  } else {
    return Usage();
  }
  return 0;
}
