// SPDX-License-Identifier: Apache-2.0
// A device that gives no more, or fails, on the driver that does nothing (tests/bench/stub_driver,
// which is linked in): what is said, and that nothing is left behind.
#include <sys/resource.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transport/completion_queue.h"
#include "transport/events.h"
#include "verbs/completion.h"
#include "verbs/device.h"
#include "verbs/linked_library.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/service.h"

namespace verbena::verbs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

int the_errno = 0;      // of what refuses
int refuse_region = 0;  // the first, the second …; 0: none
int domains = 0, queue_pairs = 0;

// What refuses, and what counts.
ibv_pd* NoDomain(ibv_context*) {
  errno = the_errno;
  return nullptr;
}
ibv_mr* SomeRegion(ibv_pd* pd, void* at, size_t length, int access) {
  errno = the_errno;
  return --refuse_region == 0 ? nullptr : (::ibv_reg_mr)(pd, at, length, access);
}
int DeregisterAndForget(ibv_mr* mr) {
  errno = EINVAL;  // as a system call may leave it
  return ::ibv_dereg_mr(mr);
}
ibv_cq* NoQueue(ibv_context*, int, void*, ibv_comp_channel*, int) {
  errno = the_errno;
  return nullptr;
}
ibv_qp* NoQueuePair(ibv_pd*, ibv_qp_init_attr*) {
  errno = the_errno;
  return nullptr;
}
ibv_pd* CountedDomain(ibv_context* context) {
  ++domains;
  return ::ibv_alloc_pd(context);
}
int CountedDomainEnd(ibv_pd* pd) {
  --domains;
  return ::ibv_dealloc_pd(pd);
}
ibv_qp* CountedPair(ibv_pd* pd, ibv_qp_init_attr* wanted) {
  if (wanted->cap.max_inline_data > 64) {
    errno = EINVAL;
    return nullptr;
  }
  ++queue_pairs;
  return ::ibv_create_qp(pd, wanted);
}
int CountedPairEnd(ibv_qp* qp) {
  --queue_pairs;
  return ::ibv_destroy_qp(qp);
}
int PortOfLittleMtu(ibv_context* context, uint8_t port, _compat_ibv_port_attr* out) {
  const int error = (::ibv_query_port)(context, port, out);
  reinterpret_cast<ibv_port_attr*>(out)->active_mtu = IBV_MTU_1024;
  return error;
}
int PortOfLittleSubnet(ibv_context* context, uint8_t port, _compat_ibv_port_attr* out) {
  const int error = (::ibv_query_port)(context, port, out);
  reinterpret_cast<ibv_port_attr*>(out)->subnet_timeout = 14;
  return error;
}
int FailingPoll(ibv_cq*, int, ibv_wc*) { return -2; }

class Told final : public provider::Host {
 public:
  void Push(const void*, Event event) override { events.push_back(std::move(event)); }
  void Forget(const void*) override {}
  int Count(EventType type) const {
    int n = 0;
    for (const Event& each : events) n += each.type == type ? 1 : 0;
    return n;
  }
  std::vector<Event> events;
};

class RefusingDevice : public testing::Test {
 protected:
  void SetUp() override {
    the_errno = ENOMEM;
    refuse_region = domains = queue_pairs = 0;
    the_library() = LinkedLibrary();
    the_library().alloc_pd = CountedDomain;
    the_library().dealloc_pd = CountedDomainEnd;
    the_library().create_qp = CountedPair;
    the_library().destroy_qp = CountedPairEnd;
    Open(false);
  }

  void Open(bool iwarp) {
    device_.reset();
    service_ = *Service::Create();
    Found found = std::move(FindDevices([](const DeviceInfo&) { return true; })->front());
    found.iwarp = iwarp;
    context_ = found.context.get();
    device_ = std::make_unique<Device>(nullptr, service_.get(), std::move(found));
    device_->SetHost(&told_);
    (void)device_->attributes();  // asks with a domain and queue pairs of its own
    ASSERT_EQ(domains, 0);
  }

  verbena::CompletionQueue NewQueue() {
    return verbena::CompletionQueue(*device_->CreateCompletionQueue({.entries = 512}));
  }

  Told told_;
  std::unique_ptr<Service> service_;
  ibv_context* context_ = nullptr;
  std::unique_ptr<Device> device_;
};

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST_F(RefusingDevice, NamesTheLimitOfEachKind) {
  the_library().alloc_pd = NoDomain;
  EXPECT_THAT(Text(device_->AllocateProtectionDomain().status()),
              AllOf(HasSubstr("on device stub0"), HasSubstr("1024 protection domains (max_pd)")));
  the_library().alloc_pd = CountedDomain;
  auto domain = *device_->AllocateProtectionDomain();
  verbena::CompletionQueue cq = NewQueue();
  the_library().create_cq = NoQueue;
  EXPECT_THAT(Text(device_->CreateCompletionQueue({.entries = 512}).status()),
              HasSubstr("1024 completion queues (max_cq)"));
  the_library().create_qp = NoQueuePair;
  EXPECT_THAT(Text(domain->CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}).status()),
              HasSubstr("1024 queue pairs (max_qp)"));
  the_library().reg_mr = SomeRegion;
  refuse_region = 1;
  std::vector<std::byte> memory(4096);
  EXPECT_THAT(Text(domain->Register(memory, Access::kLocalWrite, {}).status()),
              HasSubstr("1024 memory regions (max_mr)"));
  the_errno = EAGAIN;
  refuse_region = 1;
  const absl::Status few = domain->Register(memory, Access::kLocalWrite, {}).status();
  EXPECT_EQ(few.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(few), AllOf(HasSubstr("rdma.max"), Not(HasSubstr("MEMLOCK"))));
  EXPECT_TRUE(domain->Close().ok());
  EXPECT_EQ(domains, 0);
}

TEST_F(RefusingDevice, AnIwarpDomainsOwnRegions) {
  Open(true);
  the_library().reg_mr = SomeRegion;
  the_library().dereg_mr = DeregisterAndForget;
  for (const int which : {1, 2}) {
    refuse_region = which;
    const absl::Status status = device_->AllocateProtectionDomain().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(Text(status), AllOf(HasSubstr("allocate protection domain"), HasSubstr("max_mr"),
                                    HasSubstr("errno 12")));
    EXPECT_EQ(domains, 0);
  }
}

TEST_F(RefusingDevice, AQueuePairsInlineArea) {
  auto domain = *device_->AllocateProtectionDomain();
  verbena::CompletionQueue cq = NewQueue();
  const QueuePairOptions options{
      .send_cq = &cq, .receive_cq = &cq, .limits = {.max_send_wr = 128, .max_inline = 256}};
  the_library().reg_mr = SomeRegion;
  refuse_region = 1;
  EXPECT_THAT(Text(domain->CreateQueuePair(options).status()),
              AllOf(HasSubstr("65536 bytes for inline data"), HasSubstr("the device takes 64"),
                    HasSubstr("1024 memory regions (max_mr)")));
  // Expect: locked memory is named when the limit can be the reason, whoever is exempt from it.
  rlimit former{};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &former), 0);
  const rlimit little{.rlim_cur = std::min<rlim_t>(4096, former.rlim_max),
                      .rlim_max = former.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &little), 0);
  refuse_region = 1;
  EXPECT_THAT(Text(domain->CreateQueuePair(options).status()),
              AllOf(HasSubstr("65536 bytes for inline data"), HasSubstr("the limit is 4096"),
                    HasSubstr("ulimit -l")));
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &former), 0);
  EXPECT_EQ(queue_pairs, 0);
  EXPECT_TRUE(cq.Close().ok());
  EXPECT_TRUE(domain->Close().ok());
}

TEST_F(RefusingDevice, WhatItTakesInlineIsAskedAgainAfterAnErrorOfAnotherKind) {
  the_library().create_qp = NoQueuePair;  // ENOMEM: that says nothing of inline data
  Open(false);
  EXPECT_EQ(device_->device_inline(), 0u);
  the_library().create_qp = CountedPair;
  (void)device_->attributes();
  EXPECT_EQ(device_->device_inline(), 64u);
  the_library().create_qp = NoQueuePair;  // what is known stays
  (void)device_->attributes();
  EXPECT_EQ(device_->device_inline(), 64u);
}

TEST_F(RefusingDevice, APollThatFailsIsNoEmptyQueue) {
  for (const size_t room : {size_t{1}, CompletionQueue::kPollBatch + 1}) {
    told_.events.clear();
    auto domain = *device_->AllocateProtectionDomain();
    verbena::CompletionQueue cq = NewQueue();
    auto qp = *domain->CreateQueuePair({.send_cq = &cq, .receive_cq = &cq});
    std::vector<WorkCompletion> out(room);
    auto* const working = std::exchange(context_->ops.poll_cq, FailingPoll);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(cq.Poll(out), 0u);
    EXPECT_EQ(told_.Count(EventType::kCqError), 1);
    ASSERT_THAT(told_.events, Not(IsEmpty()));
    EXPECT_THAT(Text(told_.events.front().status),
                AllOf(HasSubstr("device stub0"), HasSubstr("ibv_poll_cq said -2")));
    EXPECT_EQ(qp->Query().state, QpState::kErr);
    EXPECT_THAT(Text(qp->cause()), HasSubstr("ibv_poll_cq"));
    context_->ops.poll_cq = working;
    EXPECT_TRUE(qp->Close().ok());
    qp.reset();
    EXPECT_TRUE(cq.Close().ok());
    EXPECT_TRUE(domain->Close().ok());
  }
}

TEST_F(RefusingDevice, OutOfBandThePortIsReadWhenItIsUsed) {
  // The port's MTU shrinks after an address was taken, which promised more; then it is as before,
  // and a subnet manager has come.
  // Expect: refused with both; then connected, with the time-out of that subnet unless asked for.
  for (const std::optional<uint8_t> asked :
       {std::optional<uint8_t>(), std::optional<uint8_t>(20)}) {
    auto domain = *device_->AllocateProtectionDomain();
    verbena::CompletionQueue cq = NewQueue();
    auto qp = *domain->CreateQueuePair({.send_cq = &cq, .receive_cq = &cq});
    Contact peer = *qp->contact();
    peer.nonce = NewNonce();
    auto* const steady = std::exchange(the_library().query_port, PortOfLittleMtu);
    const absl::Status status = qp->Connect(peer, {.timeout = asked});
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(Text(status), AllOf(HasSubstr("from LID 0 and MTU code 5 to 0 and 3"),
                                    HasSubstr("exchange addresses again")));
    the_library().query_port = PortOfLittleSubnet;
    EXPECT_TRUE(qp->Connect(peer, {.timeout = asked}).ok());
    EXPECT_EQ(qp->Query().timeout, asked.value_or(15));
    the_library().query_port = steady;
    EXPECT_TRUE(qp->Close().ok());
    qp.reset();
    EXPECT_TRUE(cq.Close().ok());
    EXPECT_TRUE(domain->Close().ok());
  }
}

}  // namespace
}  // namespace verbena::verbs
