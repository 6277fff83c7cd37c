// SPDX-License-Identifier: Apache-2.0
// An iWARP device on the driver that does nothing (tests/bench/stub_driver, which is linked in),
// whose posts and polls are this file's: they note what they are given.
#pragma once

#include <sched.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/events.h"
#include "verbs/device.h"
#include "verbs/linked_library.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/service.h"

namespace verbena::verbs {

// A request as the driver was given it.
struct Given {
  uint64_t name;
  ibv_wr_opcode opcode;
  unsigned flags;
  std::vector<ibv_sge> entries;
  uint64_t remote;
  uint32_t key;
};

// Whoever posts has it to itself: two at once, or one while it is `closed`, are counted.
struct Driver {
  std::atomic<int> inside{0};
  std::atomic<int> together{0}, intruders{0};
  std::atomic<bool> closed{false};
  std::atomic<int> refusals{0};  // the next posts
  std::mutex mutex;
  std::vector<Given> given;
  std::deque<std::pair<uint64_t, ibv_wc_opcode>> complete;
  size_t completed = 0;              // of `given`, that polls have seen
  std::function<void()> after_poll;  // once, when a poll has something and has not returned it
  std::vector<Given> received;
  size_t receives_completed = 0;
};
inline Driver the_driver;

inline int DriverPost(ibv_qp* /*qp*/, ibv_send_wr* wr, ibv_send_wr** bad) {
  if (the_driver.inside.fetch_add(1) != 0) ++the_driver.together;
  if (the_driver.closed) ++the_driver.intruders;
  int error = 0;
  for (; wr != nullptr; wr = wr->next) {
    if (the_driver.refusals > 0) {
      --the_driver.refusals;
      *bad = wr;
      error = ENOMEM;
      break;
    }
    const std::lock_guard lock(the_driver.mutex);
    the_driver.given.push_back({wr->wr_id, wr->opcode, wr->send_flags,
                                std::vector<ibv_sge>(wr->sg_list, wr->sg_list + wr->num_sge),
                                wr->wr.rdma.remote_addr, wr->wr.rdma.rkey});
  }
  sched_yield();  // where another might come in
  the_driver.inside.fetch_sub(1);
  return error;
}

inline int DriverReceive(ibv_qp* /*qp*/, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  for (; wr != nullptr; wr = wr->next) {
    if (the_driver.refusals > 0) {
      --the_driver.refusals;
      *bad = wr;
      return ENOMEM;
    }
    const std::lock_guard lock(the_driver.mutex);
    the_driver.received.push_back(
        {.name = wr->wr_id,
         .opcode = IBV_WR_SEND,
         .flags = 0,
         .entries = std::vector<ibv_sge>(wr->sg_list, wr->sg_list + wr->num_sge),
         .remote = 0,
         .key = 0});
  }
  return 0;
}

inline int DriverPoll(ibv_cq* /*cq*/, int most, ibv_wc* wc) {
  std::unique_lock lock(the_driver.mutex);
  int n = 0;
  std::vector<Given>& received = the_driver.received;
  for (; n < most && the_driver.receives_completed < received.size(); ++n) {
    wc[n] = {};
    wc[n].wr_id = received[the_driver.receives_completed++].name;
    wc[n].opcode = IBV_WC_RECV;
    wc[n].byte_len = 5;
  }
  for (; n < most && the_driver.completed < the_driver.given.size(); ++the_driver.completed) {
    const Given& done = the_driver.given[the_driver.completed];
    if ((done.flags & IBV_SEND_SIGNALED) == 0) continue;
    wc[n] = {};
    wc[n].wr_id = done.name;
    wc[n].opcode = done.opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE;
    ++n;
  }
  if (n > 0 && the_driver.after_poll != nullptr) {
    const std::function<void()> meanwhile = std::exchange(the_driver.after_poll, nullptr);
    lock.unlock();
    meanwhile();
  }
  return n;
}

class Nobody final : public provider::Host {
 public:
  void Push(const void*, Event) override {}
  void Forget(const void*) override {}
};

class IwarpPosts : public testing::Test {
 protected:
  void SetUp() override { Open(1u << 31); }

  void Open(uint32_t longest_message) {
    the_driver.given.clear();
    the_driver.completed = 0;
    the_driver.received.clear();
    the_driver.receives_completed = 0;
    the_driver.closed = false;
    the_driver.together = the_driver.intruders = the_driver.refusals = 0;
    service_ = *Service::Create();
    Found found = std::move((*FindDevices([](const DeviceInfo&) { return true; }))[1]);
    ASSERT_TRUE(found.iwarp);
    found.port_attributes.max_msg_sz = longest_message;
    found.context->ops.post_send = DriverPost;
    found.context->ops.post_recv = DriverReceive;
    found.context->ops.poll_cq = DriverPoll;
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&nobody_);
    ASSERT_TRUE(service_->Start().ok());
    domain_ = *device_->AllocateProtectionDomain();
    cq_ = std::make_unique<verbena::CompletionQueue>(
        *device_->CreateCompletionQueue({.entries = 512}));
    region_ = *domain_->Register(memory_, Access::kLocalWrite, {});
    qp_ = *domain_->CreateQueuePair(
        {.send_cq = cq_.get(),
         .receive_cq = cq_.get(),
         .limits = {.max_send_wr = 32, .max_receive_wr = 32, .max_receive_sge = 2},
         .signal = Signal::kSelective});
  }

  // `reads`: that may be in flight.
  void Connect(uint32_t reads, bool confirmed = false) {
    auto* const qp = static_cast<QueuePair*>(qp_.get());
    ASSERT_TRUE(qp->StartConnect(
                      *Address::FromIp("192.0.2.1", 7471),  // RFC 5737
                      {.initiator_depth = reads, .require = {.remote_completion = confirmed}}, {})
                    .ok());
    while (qp_->outcome().kind == ConnectOutcome::Kind::kPending) sched_yield();
    ASSERT_EQ(qp_->Query().state, QpState::kRts) << qp_->outcome().status;
  }

  void TearDown() override {
    EXPECT_TRUE(qp_->Close().ok());
    qp_.reset();
    if (region_ != nullptr) {
      EXPECT_TRUE(region_->Close().ok());
      region_.reset();
    }
    EXPECT_TRUE(cq_->Close().ok());
    EXPECT_TRUE(domain_->Close().ok());
    domain_.reset();
    service_->Stop();
  }

  Sge At(uint64_t offset, uint32_t length) const {
    return {.address = reinterpret_cast<uint64_t>(memory_.data()) + offset,
            .length = length,
            .key = region_->local_key()};
  }
  SendWr Request(Opcode opcode, SendFlags flags, uint64_t id = 1) const {
    return {.opcode = opcode,
            .local = At(0, 8),
            .remote = {.address = id, .key = 77},
            .id = id,
            .flags = flags};
  }
  PostResult Post(const SendWr& wr) { return qp_->PostSend({&wr, 1}); }
  std::vector<WorkCompletion> Completions() {
    std::vector<WorkCompletion> all(room_);
    all.resize(cq_->Poll(all));
    return all;
  }

  size_t room_ = 64;  // of a poll
  Nobody nobody_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<provider::ProtectionDomain> domain_;
  std::unique_ptr<verbena::CompletionQueue> cq_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(4096);
  std::unique_ptr<provider::MemoryRegion> region_;
  std::unique_ptr<provider::QueuePair> qp_;
};

}  // namespace verbena::verbs
