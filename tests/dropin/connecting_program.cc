// SPDX-License-Identifier: Apache-2.0
// A program for librdmacm, as others write them: ids, their channels and their events, where stock
// programs do not go. Runs on the drop-in libraries by tests/dropin/on_dropin.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <future>
#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace {

constexpr int kDeadlineMs = 20'000;

struct DestroyChannel {
  void operator()(rdma_event_channel* c) const { rdma_destroy_event_channel(c); }
};
using Channel = std::unique_ptr<rdma_event_channel, DestroyChannel>;

// With its completion queues, which librdmacm makes.
struct DestroyId {
  void operator()(rdma_cm_id* id) const { rdma_destroy_ep(id); }
};
using Id = std::unique_ptr<rdma_cm_id, DestroyId>;

Channel NewChannel() { return Channel(rdma_create_event_channel()); }

Id NewId(rdma_event_channel* channel) {
  rdma_cm_id* id = nullptr;
  EXPECT_EQ(rdma_create_id(channel, &id, nullptr, RDMA_PS_TCP), 0);
  return Id(id);
}

bool Readable(int fd, int timeout_ms = 0) {
  pollfd one{fd, POLLIN, 0};
  return poll(&one, 1, timeout_ms) == 1;
}

// The next event of `channel`, acknowledged: its type, and its status if that is asked for.
rdma_cm_event_type Next(rdma_event_channel* channel, int* status = nullptr) {
  constexpr auto kNone = static_cast<rdma_cm_event_type>(-1);
  if (!Readable(channel->fd, kDeadlineMs)) {
    ADD_FAILURE() << "no event in time";
    return kNone;
  }
  rdma_cm_event* event = nullptr;
  if (rdma_get_cm_event(channel, &event) != 0) return kNone;
  const rdma_cm_event_type type = event->event;
  if (status != nullptr) *status = event->status;
  rdma_ack_cm_event(event);
  return type;
}

sockaddr_in Loopback(uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = port;
  return address;
}
sockaddr* Name(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }

int MakeQueuePair(rdma_cm_id* id) {
  ibv_qp_init_attr attr{};
  attr.cap = {.max_send_wr = 4,
              .max_recv_wr = 4,
              .max_send_sge = 1,
              .max_recv_sge = 1,
              .max_inline_data = 0};
  attr.qp_type = IBV_QPT_RC;
  attr.sq_sig_all = 1;
  return rdma_create_qp(id, nullptr, &attr);
}

TEST(Connecting, AnIdThatMigratesToAChannelWaitsNoLonger) {
  // An id is made without a channel, so its calls wait; then it gets one of the program's.
  // Expect: a call returns at once, and its event is the program's; again without one, it waits.
  sockaddr_in to = Loopback();
  const Channel channel = NewChannel();
  const Id id = NewId(nullptr);
  ASSERT_EQ(rdma_resolve_addr(id.get(), nullptr, Name(to), 1000), 0);
  EXPECT_EQ(rdma_migrate_id(id.get(), nullptr), -1);  // it has none that it could leave
  EXPECT_EQ(errno, EINVAL);
  ASSERT_EQ(rdma_migrate_id(id.get(), channel.get()), 0);
  EXPECT_EQ(id->channel, channel.get());
  EXPECT_EQ(id->event, nullptr);
  ASSERT_EQ(rdma_resolve_route(id.get(), 1000), 0);
  ASSERT_TRUE(Readable(channel->fd));
  EXPECT_EQ(Next(channel.get()), RDMA_CM_EVENT_ROUTE_RESOLVED);
  ASSERT_EQ(rdma_migrate_id(id.get(), nullptr), 0);
  ASSERT_EQ(rdma_resolve_route(id.get(), 1000), 0);
  ASSERT_NE(id->event, nullptr);
  EXPECT_EQ(id->event->event, RDMA_CM_EVENT_ROUTE_RESOLVED);
  EXPECT_FALSE(Readable(channel->fd));
}

TEST(Connecting, OnceBoundOnceListening) {
  // An id is bound twice, and listens twice.
  // Expect: EINVAL for the second time, and the first one stands.
  sockaddr_in at = Loopback();
  const Channel channel = NewChannel();
  const Id id = NewId(channel.get());
  ASSERT_EQ(rdma_bind_addr(id.get(), Name(at)), 0);
  EXPECT_EQ(rdma_bind_addr(id.get(), Name(at)), -1);
  EXPECT_EQ(errno, EINVAL);
  ASSERT_EQ(rdma_listen(id.get(), 4), 0);
  const uint16_t port = rdma_get_src_port(id.get());
  EXPECT_EQ(rdma_listen(id.get(), 4), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(rdma_get_src_port(id.get()), port);
}

TEST(Connecting, RequestsMigrateWithTheirListener) {
  // A request waits at a listener that migrates.
  // Expect: it is told on the new channel, of which the id that comes with it is.
  const Channel former = NewChannel(), latter = NewChannel(), calls = NewChannel();
  sockaddr_in at = Loopback();
  const Id listener = NewId(former.get()), caller = NewId(calls.get());
  ASSERT_EQ(rdma_bind_addr(listener.get(), Name(at)), 0);
  ASSERT_EQ(rdma_listen(listener.get(), 4), 0);
  at.sin_port = rdma_get_src_port(listener.get());
  ASSERT_EQ(rdma_resolve_addr(caller.get(), nullptr, Name(at), 1000), 0);
  ASSERT_EQ(rdma_resolve_route(caller.get(), 1000), 0);
  ASSERT_EQ(MakeQueuePair(caller.get()), 0);
  ASSERT_EQ(rdma_connect(caller.get(), nullptr), 0);
  ASSERT_TRUE(Readable(former->fd, kDeadlineMs));
  ASSERT_EQ(rdma_migrate_id(listener.get(), latter.get()), 0);
  EXPECT_FALSE(Readable(former->fd));
  ASSERT_TRUE(Readable(latter->fd));
  rdma_cm_event* event = nullptr;
  ASSERT_EQ(rdma_get_cm_event(latter.get(), &event), 0);
  EXPECT_EQ(event->event, RDMA_CM_EVENT_CONNECT_REQUEST);
  const Id server(event->id);
  EXPECT_EQ(server->channel, latter.get());
  rdma_ack_cm_event(event);
}

// A port of the loopback's address that somebody has, who is no RDMA program; it takes callers in
// if it listens.
class Port {
 public:
  Port() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at = Loopback();
    socklen_t length = sizeof at;
    EXPECT_EQ(bind(fd_, Name(at), length), 0);
    EXPECT_EQ(getsockname(fd_, Name(at), &length), 0);
    number_ = at.sin_port;
  }
  ~Port() { close(fd_); }
  int fd() const { return fd_; }
  uint16_t number() const { return number_; }

 private:
  const int fd_;
  uint16_t number_;
};

// An id on `channel` that is about to connect to `port`.
Id Caller(rdma_event_channel* channel, uint16_t port) {
  sockaddr_in to = Loopback(port);
  Id id = NewId(channel);
  EXPECT_EQ(rdma_resolve_addr(id.get(), nullptr, Name(to), 1000), 0);
  EXPECT_EQ(rdma_resolve_route(id.get(), 1000), 0);
  if (channel != nullptr) {
    EXPECT_EQ(Next(channel), RDMA_CM_EVENT_ADDR_RESOLVED);
    EXPECT_EQ(Next(channel), RDMA_CM_EVENT_ROUTE_RESOLVED);
  }
  EXPECT_EQ(MakeQueuePair(id.get()), 0);
  return id;
}

TEST(Connecting, DisconnectedWhileItTries) {
  // Nobody listens, and the program disconnects at once.
  // Expect: one event that says so, and no further try.
  const Port nobody;
  const Channel channel = NewChannel();
  const Id id = Caller(channel.get(), nobody.number());
  ASSERT_EQ(rdma_connect(id.get(), nullptr), 0);
  ASSERT_EQ(rdma_disconnect(id.get()), 0);
  int status = 0;
  EXPECT_EQ(Next(channel.get(), &status), RDMA_CM_EVENT_UNREACHABLE);
  EXPECT_EQ(status, -ECANCELED);
  // Of another id, made later: its patience has ended when the first one's would have.
  const Id later = Caller(channel.get(), nobody.number());
  ASSERT_EQ(rdma_connect(later.get(), nullptr), 0);
  rdma_cm_event* event = nullptr;
  ASSERT_TRUE(Readable(channel->fd, kDeadlineMs));
  ASSERT_EQ(rdma_get_cm_event(channel.get(), &event), 0);
  EXPECT_EQ(event->id, later.get());
  EXPECT_EQ(event->event, RDMA_CM_EVENT_REJECTED);
  EXPECT_EQ(event->status, 8);  // invalid service id (IBTA 12.6.7.2)
  rdma_ack_cm_event(event);
}

TEST(Connecting, WhoAnswersInAnotherProtocolDoesNotReject) {
  // Something listens, and greets as no iWARP peer does.
  // Expect: UNREACHABLE: nobody has rejected anything.
  const Port other;
  ASSERT_EQ(listen(other.fd(), 1), 0);
  const Channel channel = NewChannel();
  const Id id = Caller(channel.get(), other.number());
  ASSERT_EQ(rdma_connect(id.get(), nullptr), 0);
  const int peer = accept(other.fd(), nullptr, nullptr);
  ASSERT_GE(peer, 0);
  const std::string greeting = "220 mail.example.com ESMTP, at your service\r\n";
  EXPECT_EQ(write(peer, greeting.data(), greeting.size()), static_cast<ssize_t>(greeting.size()));
  int status = 0;
  EXPECT_EQ(Next(channel.get(), &status), RDMA_CM_EVENT_UNREACHABLE);
  EXPECT_EQ(status, -EPROTO);
  close(peer);
}

TEST(Connecting, QueuePairsWhoseRequestsAreBuilt) {
  // rdma_create_qp_ex names the operations that will be built.
  // Expect: a queue pair for ibv_wr_start; its completion queue knows the id; what no device here
  // has is refused.
  sockaddr_in to = Loopback();
  const Channel channel = NewChannel();
  const Id id = NewId(channel.get());
  ASSERT_EQ(rdma_resolve_addr(id.get(), nullptr, Name(to), 1000), 0);
  ibv_qp_init_attr_ex attr{};
  attr.cap = {4, 4, 1, 1, 0};
  attr.qp_type = IBV_QPT_RC;
  attr.comp_mask = IBV_QP_INIT_ATTR_SEND_OPS_FLAGS | IBV_QP_INIT_ATTR_CREATE_FLAGS;
  attr.send_ops_flags = IBV_QP_EX_WITH_SEND;
  attr.create_flags = IBV_QP_CREATE_SCATTER_FCS;
  EXPECT_EQ(rdma_create_qp_ex(id.get(), &attr), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  attr.create_flags = 0;
  attr.send_cq = attr.recv_cq = nullptr;
  ASSERT_EQ(rdma_create_qp_ex(id.get(), &attr), 0);
  EXPECT_NE(ibv_qp_to_qp_ex(id->qp), nullptr);
  EXPECT_EQ(id->send_cq->cq_context, id.get());
  EXPECT_EQ(id->recv_cq->cq_context, id.get());
}

TEST(Connecting, ARequestThatCannotBeServedIsRejected) {
  // A listening endpoint is to make queue pairs that are too large.
  // Expect: rdma_get_request fails, and the caller is told.
  rdma_addrinfo hints{};
  hints.ai_flags = RAI_PASSIVE;
  hints.ai_port_space = RDMA_PS_TCP;
  rdma_addrinfo* found = nullptr;
  ASSERT_EQ(rdma_getaddrinfo("127.0.0.1", nullptr, &hints, &found), 0);
  ibv_qp_init_attr attr{};
  attr.cap = {1u << 30, 4, 1, 1, 0};
  rdma_cm_id* made = nullptr;
  ASSERT_EQ(rdma_create_ep(&made, found, nullptr, &attr), 0);
  const Id listener(made);
  rdma_freeaddrinfo(found);
  ASSERT_EQ(rdma_listen(made, 4), 0);
  const Channel channel = NewChannel();
  const Id caller = Caller(channel.get(), rdma_get_src_port(made));
  ASSERT_EQ(rdma_connect(caller.get(), nullptr), 0);
  rdma_cm_id* request = nullptr;
  EXPECT_EQ(rdma_get_request(made, &request), -1);
  EXPECT_EQ(Next(channel.get()), RDMA_CM_EVENT_REJECTED);
}

TEST(Connecting, ThereIsNothingToDisconnect) {
  // Ids whose calls wait: one whose connect has failed; the ends of a connection, one after the
  // other and the first of them twice.
  // Expect: EINVAL where no event will come, instead of a wait without end.
  const Port nobody;
  const Id alone = Caller(nullptr, nobody.number());
  ASSERT_EQ(rdma_connect(alone.get(), nullptr), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  EXPECT_EQ(rdma_disconnect(alone.get()), -1);
  EXPECT_EQ(errno, EINVAL);

  sockaddr_in at = Loopback();
  const Id listener = NewId(nullptr);
  ASSERT_EQ(rdma_bind_addr(listener.get(), Name(at)), 0);
  ASSERT_EQ(rdma_listen(listener.get(), 4), 0);
  const Id caller = Caller(nullptr, rdma_get_src_port(listener.get()));
  auto connected =
      std::async(std::launch::async, [&] { return rdma_connect(caller.get(), nullptr); });
  rdma_cm_id* accepted = nullptr;
  ASSERT_EQ(rdma_get_request(listener.get(), &accepted), 0);
  const Id server(accepted);
  ASSERT_EQ(MakeQueuePair(accepted), 0);
  ASSERT_EQ(rdma_accept(accepted, nullptr), 0);
  ASSERT_EQ(connected.get(), 0);
  EXPECT_EQ(rdma_disconnect(caller.get()), 0);
  EXPECT_EQ(rdma_disconnect(caller.get()), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(rdma_disconnect(accepted), 0);
}

// Ends with the sum of what `checks` found wrong: a child must not run the parent's destructors.
template <typename Checks>
int InChild(Checks checks) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kDeadlineMs / 1000);
    _exit(checks());
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Connecting, AChildLeavesIdsToItsParent) {
  // A server forks while it listens and an event waits. The child destroys what it inherits, as
  // forking servers do, asks for the event, and listens on an id of its own.
  // Expect: EIO for what it inherits; the parent has its event, and its listener hears.
  const Channel channel = NewChannel(), calls = NewChannel();
  sockaddr_in at = Loopback();
  const Id listener = NewId(channel.get()), caller = NewId(calls.get());
  ASSERT_EQ(rdma_bind_addr(listener.get(), Name(at)), 0);
  ASSERT_EQ(rdma_listen(listener.get(), 4), 0);
  at.sin_port = rdma_get_src_port(listener.get());
  ASSERT_EQ(rdma_resolve_addr(caller.get(), nullptr, Name(at), 1000), 0);
  EXPECT_EQ(InChild([&] {
              int failed = 0;
              rdma_cm_event* event = nullptr;
              rdma_cm_id* id = listener.get();
              sockaddr_in own = Loopback();
              failed |= rdma_get_cm_event(calls.get(), &event) == -1 && errno == EIO ? 0 : 1;
              failed |= rdma_destroy_id(id) == -1 && errno == EIO ? 0 : 2;
              failed |= rdma_create_id(channel.get(), &id, nullptr, RDMA_PS_TCP) == -1 ? 0 : 4;
              failed |= rdma_create_id(nullptr, &id, nullptr, RDMA_PS_TCP) == 0 ? 0 : 8;
              failed |= rdma_bind_addr(id, Name(own)) == 0 && rdma_listen(id, 1) == 0 ? 0 : 16;
              failed |= rdma_destroy_id(id) == 0 ? 0 : 32;
              return failed;
            }),
            0);
  ASSERT_TRUE(Readable(calls->fd));
  EXPECT_EQ(Next(calls.get()), RDMA_CM_EVENT_ADDR_RESOLVED);
  ASSERT_EQ(rdma_resolve_route(caller.get(), 1000), 0);
  EXPECT_EQ(Next(calls.get()), RDMA_CM_EVENT_ROUTE_RESOLVED);
  ASSERT_EQ(MakeQueuePair(caller.get()), 0);
  ASSERT_EQ(rdma_connect(caller.get(), nullptr), 0);
  ASSERT_TRUE(Readable(channel->fd, kDeadlineMs));
  rdma_cm_event* event = nullptr;
  ASSERT_EQ(rdma_get_cm_event(channel.get(), &event), 0);
  EXPECT_EQ(event->event, RDMA_CM_EVENT_CONNECT_REQUEST);
  const Id server(event->id);
  rdma_ack_cm_event(event);
}

}  // namespace
