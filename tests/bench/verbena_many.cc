// SPDX-License-Identifier: Apache-2.0
// 64 B sends on many queue pairs that share one completion queue, in millions a second.
#include <sys/resource.h>

#include <array>

#include "tests/bench/verbena_end.h"

namespace verbena::bench {
namespace {

constexpr uint32_t kDoorbell = 32;    // messages posted by one call, the last one signalled
constexpr uint32_t kWindow = 256;     // messages of a queue pair
constexpr uint32_t kReceives = 1024;  // of a queue pair
constexpr size_t kOthers = 64;        // descriptors besides the sockets

// Raises the soft limit; true if `sockets` fit under the hard one.
bool MakeRoom(size_t sockets, rlim_t* hard) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  *hard = limit.rlim_max;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_max >= sockets + kOthers;
}

Setup Many(size_t open, size_t active, bool server) {
  return {.send_queue = kWindow,
          .receive_queue = kReceives,
          .receives = server ? kReceives : 0,
          .receive_size = kMessage,
          .queue_pairs = open,
          .active = active};
}

// Which queue pair a completion is of; numbers may be anything.
class Index {
 public:
  explicit Index(const End& end) {
    for (size_t i = 0; i < end.setup.active; ++i) numbers_.push_back(end.qps[i].number());
  }
  size_t Of(uint32_t number) {
    // Mostly the same one as last time, or its neighbour.
    while (numbers_[last_] != number) last_ = last_ + 1 == numbers_.size() ? 0 : last_ + 1;
    return last_;
  }

 private:
  std::vector<uint32_t> numbers_;
  size_t last_ = 0;
};

void Serve(size_t open, size_t active, const Options& options, Shared& shared) {
  rlim_t hard = 0;
  MakeRoom(open, &hard);
  const auto end = Accept(options, shared, Many(open, active, true));
  Index index(*end);
  std::vector<uint32_t> used(active);
  while (!Stopped(shared)) {
    const size_t n = end->Poll();
    for (size_t i = 0; i < n; ++i) {
      const size_t at = index.Of(end->done[i].qp_number);
      if (++used[at] < kDoorbell) continue;
      used[at] = 0;
      end->PostReceives(end->qps[at], kDoorbell, kMessage);
    }
  }
  Leave(*end, shared);
}

Result Measure(size_t open, size_t active, const Options& options, Shared& shared) {
  const auto end = Connect(options, shared, Many(open, active, false));
  std::array<SendWr, kDoorbell> batch;
  batch.fill({.opcode = Opcode::kSend, .local = end->region.slice(0, kMessage)});
  batch.back().flags = SendFlags::kSignaled;
  Index index(*end);
  uint64_t posted = 0;  // doorbells
  const auto ring = [&](size_t at) {
    Check(end->qps[at].PostSend(batch));
    ++posted;
  };
  for (size_t at = 0; at < active; ++at) {
    for (uint32_t i = 0; i < kWindow / kDoorbell; ++i) ring(at);
  }
  const Clock clock(options.seconds);
  uint64_t begin = 0, before = 0, now = 0;
  while (!clock.over(now) || begin == 0 || end->sent == before) {
    const size_t n = end->Poll();
    for (size_t i = 0; i < n; ++i) ring(index.Of(end->done[i].qp_number));
    now = NowNs();
    if (begin == 0 && clock.warm(now)) {
      begin = now;
      before = end->sent;
    }
  }
  Result result;
  result.unit = "M/s";
  result.value = static_cast<double>((end->sent - before) * kDoorbell) * 1e3 /
                 static_cast<double>(now - begin);
  while (end->sent != posted) end->Poll();
  Dismiss(*end, shared, &result);
  return result;
}

Row Sends(const char* name, size_t open, size_t active) {
  Row row;
  row.name = name;
  row.lacks = [open] {
    rlim_t hard = 0;
    return MakeRoom(open, &hard)
               ? std::string()
               : "needs " + std::to_string(open + kOthers) +
                     " descriptors in each process, and the hard limit is " + std::to_string(hard) +
                     ": raise it (LimitNOFILE=, limits.conf, docker --ulimit nofile=)";
  };
  row.serve = [=](const Options& options, Shared& shared) { Serve(open, active, options, shared); };
  row.measure = [=](const Options& options, Shared& shared) {
    return Measure(open, active, options, shared);
  };
  return row;
}

}  // namespace

std::vector<Row> ManyRows() {
  return {Sends("messages_64_qps", 64, 64), Sends("open_8", 8, 8), Sends("open_10000", 10'000, 8)};
}

}  // namespace verbena::bench
