// SPDX-License-Identifier: Apache-2.0
// A server for kill_test: writes down every call that it runs, and kills itself with SIGKILL at a
// step of its N-th one.
//   mortal_server FILE ADDRESS STEP N      STEP: begun, written, answered, or never
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "examples/check.h"
#include "tests/rpc/shelf.verbena.h"

namespace verbena::testing {
namespace {

class Mortal final : public Shelf::AsyncService {
 public:
  Mortal(const char* file, std::string step, int last)
      : fd_(open(file, O_WRONLY | O_CREAT | O_APPEND, 0644)), step_(std::move(step)), last_(last) {}

  void Do(rpc::ServerCall<Order, Text> call) override { Run(std::move(call), 'd'); }
  void Echo(rpc::ServerCall<Text, Text> call) override {
    Order order;
    order.set_message(call.request().text());
    Write(order, 'e');
    call.Finish(call.request());
    DieAt("answered");
  }

 private:
  void Run(rpc::ServerCall<Order, Text> call, char kind) {
    Write(call.request(), kind);
    Text done;
    call.Finish(done);
    DieAt("answered");
  }
  void Write(const Order& order, char kind) {
    ++calls_;
    DieAt("begun");
    const std::string line = kind + order.message() + "\n";
    if (write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) exit(3);
    DieAt("written");
  }
  void DieAt(const std::string& step) const {
    if (step == step_ && calls_ == last_) kill(getpid(), SIGKILL);
  }

  const int fd_;
  const std::string step_;
  const int last_;
  int calls_ = 0;  // inline handlers on one thread
};

}  // namespace
}  // namespace verbena::testing

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  verbena::testing::Mortal service(argv[1], argv[3], std::atoi(argv[4]));
  auto server = Check(verbena::rpc::Server::Open(
      {.context = {.device = "tcp", .rdma = verbena::Rdma::kOff}, .handler_threads = 0}));
  Check(server->Add(service));
  Check(server->Start(argv[2]));
  printf("listening on port %d\n", server->port());
  fflush(stdout);
  pause();
}
