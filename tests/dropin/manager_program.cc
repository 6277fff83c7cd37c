// SPDX-License-Identifier: Apache-2.0
// A program for librdmacm, as others write them: what stock programs do not show.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/rdma_cma.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "gtest/gtest.h"

namespace {

constexpr int kDeadlineMs = 20'000;

// An id with its channel, and a queue pair that librdmacm does not know.
struct End {
  End() {
    channel = rdma_create_event_channel();
    EXPECT_EQ(rdma_create_id(channel, &id, nullptr, RDMA_PS_TCP), 0);
  }
  ~End() {
    if (qp != nullptr) {
      EXPECT_EQ(ibv_destroy_qp(qp), 0);
      EXPECT_EQ(ibv_destroy_cq(cq), 0);
      EXPECT_EQ(ibv_dereg_mr(mr), 0);
    }
    EXPECT_EQ(rdma_destroy_id(id), 0);
    rdma_destroy_event_channel(channel);
  }
  // The next event, of which `expected` is the type; acknowledged by the caller.
  rdma_cm_event* Next(rdma_cm_event_type expected) {
    pollfd readable{channel->fd, POLLIN, 0};
    if (poll(&readable, 1, kDeadlineMs) != 1) {
      ADD_FAILURE() << "no event; " << rdma_event_str(expected) << " was expected";
      return nullptr;
    }
    rdma_cm_event* event = nullptr;
    EXPECT_EQ(rdma_get_cm_event(channel, &event), 0);
    EXPECT_STREQ(rdma_event_str(event->event), rdma_event_str(expected));
    return event;
  }
  void Expect(rdma_cm_event_type expected) {
    rdma_cm_event* const event = Next(expected);
    ASSERT_NE(event, nullptr);
    rdma_ack_cm_event(event);
  }
  void MakeQueuePair() {
    cq = ibv_create_cq(id->verbs, 16, nullptr, nullptr, 0);
    ibv_qp_init_attr attr{};
    attr.send_cq = attr.recv_cq = cq;
    attr.cap = {.max_send_wr = 4,
                .max_recv_wr = 4,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    attr.qp_type = IBV_QPT_RC;
    attr.sq_sig_all = 1;
    qp = ibv_create_qp(id->pd, &attr);
    mr = ibv_reg_mr(id->pd, memory.data(), memory.size(), IBV_ACCESS_LOCAL_WRITE);
    ASSERT_NE(qp, nullptr);
    ASSERT_NE(mr, nullptr);
  }
  int Move(ibv_qp_state state) {
    ibv_qp_attr attr{};
    int mask = 0;
    attr.qp_state = state;
    if (rdma_init_qp_attr(id, &attr, &mask) != 0) return errno;
    return ibv_modify_qp(qp, &attr, mask);
  }
  ibv_sge Sge() { return {reinterpret_cast<uint64_t>(memory.data()), 8, mr->lkey}; }
  ibv_wc_status Wait() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDeadlineMs);
    ibv_wc wc{};
    while (ibv_poll_cq(cq, 1, &wc) == 0 && std::chrono::steady_clock::now() < end) {
    }
    return wc.status;
  }

  rdma_event_channel* channel = nullptr;
  rdma_cm_id* id = nullptr;
  ibv_cq* cq = nullptr;
  ibv_qp* qp = nullptr;
  ibv_mr* mr = nullptr;
  alignas(8) std::array<char, 8> memory{};
};

sockaddr_in Loopback() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

TEST(Manager, AnIdThatGetsAChannel) {
  // An id without a channel is bound to the loopback and resolves an address, then migrates to a
  // channel and resolves the route, as libfabric does.
  // Expect: no device until the address is resolved; calls wait first, and then do not, and the
  // event is on the channel.
  sockaddr_in address = Loopback();
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  End end;
  rdma_cm_id* const with_channel = end.id;
  ASSERT_EQ(rdma_create_id(nullptr, &end.id, nullptr, RDMA_PS_TCP), 0);
  ASSERT_EQ(rdma_destroy_id(with_channel), 0);
  ASSERT_EQ(rdma_bind_addr(end.id, name), 0);
  EXPECT_EQ(end.id->verbs, nullptr);
  address.sin_port = htons(1);
  ASSERT_EQ(rdma_resolve_addr(end.id, nullptr, name, 1000), 0);
  EXPECT_NE(end.id->verbs, nullptr);
  ASSERT_EQ(rdma_migrate_id(end.id, end.channel), 0);
  EXPECT_EQ(end.id->channel, end.channel);
  ASSERT_EQ(rdma_resolve_route(end.id, 1000), 0);
  end.Expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
}

TEST(Manager, ListenersOfOneFamily) {
  // One id listens at [::] for IPv6 only, another one at 0.0.0.0 and the same port.
  // Expect: both can.
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  End v6, v4;
  int only = 1;
  ASSERT_EQ(rdma_set_option(v6.id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &only, sizeof only), 0);
  ASSERT_EQ(rdma_bind_addr(v6.id, reinterpret_cast<sockaddr*>(&six)), 0);
  ASSERT_EQ(rdma_listen(v6.id, 4), 0);
  ASSERT_NE(rdma_get_src_port(v6.id), 0);
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = rdma_get_src_port(v6.id);
  ASSERT_EQ(rdma_bind_addr(v4.id, reinterpret_cast<sockaddr*>(&four)), 0);
  EXPECT_EQ(rdma_listen(v4.id, 4), 0);
}

TEST(Manager, QueuePairsThatAreMovedByHand) {
  // Both ends make their queue pairs with ibv_create_qp, name them in rdma_connect and rdma_accept,
  // and move them with rdma_init_qp_attr and ibv_modify_qp, as rdma_establish(3) says.
  // Expect: CONNECT_RESPONSE at the caller, ESTABLISHED at the listener, and a message passes.
  sockaddr_in address = Loopback();
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  End listener, caller;
  ASSERT_EQ(rdma_bind_addr(listener.id, name), 0);
  ASSERT_EQ(rdma_listen(listener.id, 4), 0);
  address.sin_port = rdma_get_src_port(listener.id);
  ASSERT_EQ(rdma_resolve_addr(caller.id, nullptr, name, 1000), 0);
  caller.Expect(RDMA_CM_EVENT_ADDR_RESOLVED);
  ASSERT_EQ(rdma_resolve_route(caller.id, 1000), 0);
  caller.Expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
  caller.MakeQueuePair();
  ASSERT_EQ(caller.Move(IBV_QPS_INIT), 0);
  rdma_conn_param parameters{};
  parameters.qp_num = caller.qp->qp_num;
  parameters.responder_resources = parameters.initiator_depth = 2;
  parameters.retry_count = parameters.rnr_retry_count = 7;
  ASSERT_EQ(rdma_connect(caller.id, &parameters), 0);

  rdma_cm_event* const request = listener.Next(RDMA_CM_EVENT_CONNECT_REQUEST);
  ASSERT_NE(request, nullptr);
  {
    End server;
    ASSERT_EQ(rdma_destroy_id(server.id), 0);
    server.id = request->id;
    rdma_ack_cm_event(request);
    ASSERT_EQ(rdma_migrate_id(server.id, server.channel), 0);
    server.MakeQueuePair();
    ASSERT_EQ(server.Move(IBV_QPS_INIT), 0);
    ibv_sge into = server.Sge();
    ibv_recv_wr receive{1, nullptr, &into, 1};
    ibv_recv_wr* bad_receive = nullptr;
    ASSERT_EQ(ibv_post_recv(server.qp, &receive, &bad_receive), 0);
    ASSERT_EQ(server.Move(IBV_QPS_RTR), 0);
    ASSERT_EQ(server.Move(IBV_QPS_RTS), 0);
    parameters.qp_num = server.qp->qp_num;
    ASSERT_EQ(rdma_accept(server.id, &parameters), 0);

    caller.Expect(RDMA_CM_EVENT_CONNECT_RESPONSE);
    ASSERT_EQ(caller.Move(IBV_QPS_INIT), 0);  // once more, as who does all three now
    ASSERT_EQ(caller.Move(IBV_QPS_RTR), 0);
    ASSERT_EQ(caller.Move(IBV_QPS_RTS), 0);
    ASSERT_EQ(rdma_establish(caller.id), 0);
    server.Expect(RDMA_CM_EVENT_ESTABLISHED);

    std::memcpy(caller.memory.data(), "by hand", 8);
    ibv_sge from = caller.Sge();
    ibv_send_wr send{};
    send.sg_list = &from;
    send.num_sge = 1;
    send.opcode = IBV_WR_SEND;
    ibv_send_wr* bad_send = nullptr;
    ASSERT_EQ(ibv_post_send(caller.qp, &send, &bad_send), 0);
    EXPECT_EQ(caller.Wait(), IBV_WC_SUCCESS);
    EXPECT_EQ(server.Wait(), IBV_WC_SUCCESS);
    EXPECT_STREQ(server.memory.data(), "by hand");
    ASSERT_EQ(rdma_disconnect(caller.id), 0);
    caller.Expect(RDMA_CM_EVENT_DISCONNECTED);
    server.Expect(RDMA_CM_EVENT_DISCONNECTED);
  }
}

}  // namespace
