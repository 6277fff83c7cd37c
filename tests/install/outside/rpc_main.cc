// SPDX-License-Identifier: Apache-2.0
//
// A program outside of Verbena with a service of its own: calls it, with bulk data, and fails to
// open a name of etcd that cannot be.
#include <rpc/names/etcd.h>

#include <cstdio>
#include <cstring>
#include <span>
#include <string>

#include "greeter/greeter.verbena.h"

namespace {

class Greets final : public outside::Greeter::Service {
 public:
  absl::StatusOr<outside::Greeting> Greet(verbena::rpc::ServerContext& call,
                                          const outside::Greeting& request) override {
    outside::Greeting answer;
    answer.set_text("hello " + request.text());
    const auto bytes = std::as_bytes(std::span(answer.text()));
    if (auto sent = call.Push(request.into(), 0, bytes); !sent.ok()) return sent;
    return answer;
  }
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main() {
  const verbena::ContextOptions tcp = {.device = "tcp", .rdma = verbena::Rdma::kOff};
  Greets service;
  auto server = verbena::rpc::Server::Open({.context = tcp, .health = true});
  if (!server.ok()) return Fail(server.status());
  if (auto status = (*server)->Add(service); !status.ok()) return Fail(status);
  if (auto status = (*server)->Start("127.0.0.1:0"); !status.ok()) return Fail(status);
  auto channel = verbena::rpc::Channel::Open(
      (*server)->address(), {.context = tcp, .names = verbena::rpc::EtcdNames, .health = ""});
  if (!channel.ok()) return Fail(channel.status());
  const outside::Greeter::Client client(**channel);
  verbena::rpc::ClientContext context(absl::Seconds(60));
  std::string into(13, '.');
  outside::Greeting request;
  request.set_text("outside");
  auto lent = (*channel)->Lend(context, std::as_writable_bytes(std::span(into)),
                               verbena::rpc::BulkAccess::kWrite);
  if (!lent.ok()) return Fail(lent.status());
  *request.mutable_into() = *lent;
  auto answer = client.Greet(request, context);
  if (!answer.ok()) return Fail(answer.status());
  if (into != answer->text()) return 2;
  if (verbena::rpc::Registration::Open("no name", "a:1").ok()) return 3;
  std::printf("%s\n", into.c_str());
  return 0;
}
