// SPDX-License-Identifier: Apache-2.0
// Verbena beside other things in one epoll loop: connection requests, connection events and
// completions each have a descriptor. An echo server for any number of clients, and a client in the
// same process and the same loop, so that it can be tried at once; it ends when the client has its
// echo back.
#include <sys/epoll.h>

#include <array>
#include <cstdio>
#include <list>
#include <span>
#include <string_view>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example

namespace {

constexpr size_t kMessage = 64;  // bytes

// One end of a connection: what it received last stands in `in`, what it sends in `out`.
struct End {
  End(Device& device, CompletionQueue& cq)
      : pd(Check(device.AllocateProtectionDomain())),
        region(Check(pd.Register(std::as_writable_bytes(std::span(text)), Access::kLocalWrite))),
        qp(Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq, .context = this}))) {
    Receive();
  }
  void Receive() {
    const auto id = reinterpret_cast<uint64_t>(this);
    Check(qp.PostReceive({.local = region.slice(0, kMessage), .id = id}));
  }
  void Send(std::string_view what) {
    what.copy(text.data() + kMessage, kMessage - 1);
    Check(qp.PostSend({.local = region.slice(kMessage, kMessage)}));
  }
  const char* in() const { return text.data(); }

  std::array<char, 2 * kMessage> text = {};
  ProtectionDomain pd;
  MemoryRegion region;
  QueuePair qp;
};

void Watch(int epoll, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) perror("epoll_ctl");
}

}  // namespace

int main() {
  auto context = Check(Context::Open());
  auto listener = Check(context.Listen("127.0.0.1:0"));
  auto path = Check(context.Resolve(listener.address()));
  auto channel = Check(path.device().CreateCompletionChannel());
  auto cq = Check(path.device().CreateCompletionQueue({.channel = &channel}));
  Check(cq.RequestNotify());

  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  for (int fd : {listener.fd(), context.events().fd(), channel.fd()}) Watch(epoll, fd);

  std::list<End> servers;
  End client(path.device(), cq);
  Check(path.StartConnect(client.qp));
  for (bool echoed = false; !echoed;) {
    epoll_event ready;
    if (epoll_wait(epoll, &ready, 1, -1) != 1) continue;
    if (ready.data.fd == listener.fd()) {
      for (ConnectionRequest request; (request = listener.TryNext()).is_open();) {
        Check(request.Accept(servers.emplace_back(request.device(), cq).qp));
      }
    } else if (ready.data.fd == context.events().fd()) {
      while (auto event = context.events().TryNext()) {
        printf("event: %s\n", EventTypeName(event->type));
        Check(event->status);
        if (event->context != &client || event->type != EventType::kEstablished) continue;
        client.Send("hello");
      }
    } else {
      for (CqEvent event; channel.TryNext(&event);) {
      }
      Check(cq.RequestNotify());  // one-shot, as in verbs; poll once more after arming
      std::array<WorkCompletion, 16> done;
      for (size_t count; (count = cq.Poll(done)) > 0;) {
        for (const WorkCompletion& wc : std::span(done).first(count)) {
          Check(wc.ToStatus());
          if (wc.opcode != WcOpcode::kReceive) continue;
          End& end = *reinterpret_cast<End*>(wc.id);  // NOLINT: the id is ours
          const bool is_client = &end == &client;
          printf("%s got: %s\n", is_client ? "client" : "server", end.in());
          if (is_client) {
            echoed = true;
          } else {
            end.Send(end.in());
          }
          end.Receive();
        }
      }
    }
  }
}
