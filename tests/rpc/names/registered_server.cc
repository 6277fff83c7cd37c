// SPDX-License-Identifier: Apache-2.0
// A server that says in etcd that it is there, until somebody kills it.
//   registered_server ETCD_NAME LIFETIME_SECONDS
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "examples/check.h"
#include "rpc/names/etcd.h"
#include "rpc/server.h"
#include "tests/rpc/shelf.verbena.h"

namespace verbena::testing {
namespace {

class Named final : public Shelf::AsyncService {
 public:
  void Echo(rpc::ServerCall<Text, Text> call) override {
    Text answer;
    answer.set_text(std::to_string(getpid()));
    call.Finish(answer);
  }
};

}  // namespace
}  // namespace verbena::testing

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  verbena::testing::Named service;
  auto server = Check(verbena::rpc::Server::Open(
      {.context = {.device = "tcp", .rdma = verbena::Rdma::kOff}, .handler_threads = 0}));
  Check(server->Add(service));
  Check(server->Start("127.0.0.1:0"));
  const auto registration = Check(verbena::rpc::Registration::Open(
      argv[1], server->address(), absl::Seconds(std::atoi(argv[2]))));
  Check(registration->WaitUntilRegistered(absl::Seconds(60)));
  printf("registered %s\n", server->address().c_str());
  fflush(stdout);
  pause();
}
