// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/pair.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena::conformance {
namespace {

// One word of the pattern: a bijective mix, so that no two places look alike.
uint64_t PatternWord(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0x9e3779b97f4a7c15 + index * 0xbf58476d1ce4e5b9 + 1;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

Buffer::Buffer(size_t size) : size_(size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    Stop(absl::StrCat("mmap of ", size, " bytes: ", strerror(errno)), Line::Here());
  data_ = static_cast<std::byte*>(memory);
}

Buffer::~Buffer() { munmap(data_, size_); }

void Buffer::Protect(int protection) const {
  if (mprotect(data_, size_, protection) != 0) Stop("mprotect failed", Line::Here());
}

void Fill(std::span<std::byte> bytes, uint64_t seed) {
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = PatternWord(seed, i / 8);
    std::memcpy(&bytes[i], &word, std::min<size_t>(8, bytes.size() - i));
  }
}

std::string Mismatch(std::span<const std::byte> bytes, uint64_t seed) {
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = PatternWord(seed, i / 8);
    if (std::memcmp(&bytes[i], &word, std::min<size_t>(8, bytes.size() - i)) != 0) {
      return absl::StrCat("which differs in the 8 bytes from ", i, " of ", bytes.size());
    }
  }
  return "";
}

End::End(Device& on, const EndOptions& wanted)
    : device(on), options(wanted), buffer(wanted.memory) {
  pd = Check(device.AllocateProtectionDomain());
  region = Check(pd.Register(buffer.bytes(), options.region_access));
  if (options.channel) channel = Check(device.CreateCompletionChannel());
  CqOptions cq_options{.entries = std::min(options.cq_entries, device.attributes().max_completions),
                       .channel = options.channel ? &channel : nullptr,
                       .context = &cq};
  cq = Check(device.CreateCompletionQueue(cq_options));
  if (options.separate_receive_cq) {
    cq_options.context = &receive_cq;
    receive_cq = Check(device.CreateCompletionQueue(cq_options));
  }
  if (options.shared_receive_queue) {
    srq = Check(
        pd.CreateSharedReceiveQueue({.limits = *options.shared_receive_queue, .context = &srq}));
  }
  qp = NewQueuePair(this);
}

QueuePair End::NewQueuePair(void* context) {
  return Check(pd.CreateQueuePair({.type = options.type,
                                   .send_cq = &cq,
                                   .receive_cq = &receives(),
                                   .shared_receive_queue = srq.is_open() ? &srq : nullptr,
                                   .limits = options.limits,
                                   .signal = options.signal,
                                   .access = options.qp_access,
                                   .context = context}));
}

PairOptions Both(const EndOptions& options) { return {.server = options, .client = options}; }

void Connect(ConformanceBase& test, QueuePair& client, QueuePair& server,
             const ConnectParameters& connect, const AcceptParameters& accept, Line line) {
  Listener listener = Check(test.server().Listen(test.AnyPort()), line);
  Path path = Check(test.client().Resolve(listener.address()), line);
  // An iWARP device completes as the rules want it only for those who insist.
  const bool insist = test.client().devices()[0]->capabilities().remote_completion;
  ConnectParameters ours = connect;
  AcceptParameters theirs = accept;
  ours.require.remote_completion = theirs.require.remote_completion = insist;
  Check(path.StartConnect(client, ours), line);
  ConnectionRequest request = Check(listener.Next(kLong), line);
  Check(request.Accept(server, theirs), line);
  test.WaitForEvent(test.client(), EventType::kEstablished, line);
  test.WaitForEvent(test.server(), EventType::kEstablished, line);
}

Pair MakePair(ConformanceBase& test, const PairOptions& options, Line line) {
  Pair pair;
  pair.server = std::make_unique<End>(*test.server().devices()[0], options.server);
  pair.client = std::make_unique<End>(*test.client().devices()[0], options.client);
  Connect(test, pair.client->qp, pair.server->qp, options.connect, options.accept, line);
  if (options.server_min_rnr_timer) {
    Check(pair.server->qp.Modify({.min_rnr_timer = options.server_min_rnr_timer}), line);
  }
  return pair;
}

void Post(QueuePair& qp, const SendWr& request, Line line) { Check(qp.PostSend(request), line); }

void PostReceive(QueuePair& qp, const ReceiveWr& request, Line line) {
  Check(qp.PostReceive(request), line);
}

}  // namespace verbena::conformance
