// SPDX-License-Identifier: Apache-2.0
// 8 B to and fro: half of the round trip.
#include <cstring>

#include "tests/bench/verbena_end.h"

namespace verbena::bench {
namespace {

constexpr uint32_t kPings = 64;  // receives that wait

// One turn after the other, at the client; `turn` is told how many there have been with it.
template <typename Turn>
Result Measure(const Options& options, End& end, Shared& shared, Turn turn) {
  Samples samples;
  const Clock clock(options.seconds);
  uint64_t number = 0;
  for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
    turn(++number);
    const uint64_t now = NowNs();
    if (clock.warm(begin)) samples.Add(now - begin);
    begin = now;
  }
  Result result = Latency(samples);
  Dismiss(end, shared, &result);
  return result;
}

// --- Sends ---------------------------------------------------------------------------------------

void PostPing(End& end) {
  Check(end.qp.PostSend({.opcode = Opcode::kSend,
                         .local = end.region.slice(kOutbox, kSmall),
                         .flags = SendFlags::kSignaled}));
}

// Spinning on the completion queue, or asleep until its channel has an event.
Row Sends(const char* name, bool events) {
  const Setup setup{.events = events, .receives = kPings, .receive_size = kSmall};
  const auto wait = [events](End& end) {
    if (events) {
      end.Await();
    } else {
      end.Poll();
    }
  };
  Row row;
  row.name = name;
  row.serve = [setup, wait](const Options& options, Shared& shared) {
    const auto end = Accept(options, shared, setup);
    for (uint64_t answered = 0; !Stopped(shared);) {
      wait(*end);
      if (end->received == answered) continue;
      ++answered;
      PostPing(*end);
      end->PostReceives(end->qp, 1, kSmall);
    }
    Leave(*end, shared);
  };
  row.measure = [setup, wait](const Options& options, Shared& shared) {
    const auto end = Connect(options, shared, setup);
    return Measure(options, *end, shared, [&](uint64_t number) {
      PostPing(*end);
      while (end->received != number) wait(*end);
      end->PostReceives(end->qp, 1, kSmall);
    });
  };
  return row;
}

// --- Writes --------------------------------------------------------------------------------------

// What a side does besides writing and watching its memory.
enum class Care {
  kPoll,    // polls while it watches
  kOwn,     // perftest's ib_write_lat: watches only, but polls until its own write is complete
  kNothing  // never polls, but for the few completions without which its queue would be full
};

// Care::kNothing: of so many writes one is signalled, then polled for.
constexpr uint64_t kSignalEvery = 2048;

void WritePing(End& end, uint64_t number, Care care) {
  const bool signaled = care != Care::kNothing || number % kSignalEvery == 0;
  std::memcpy(end.at(kOutbox), &number, sizeof(number));
  Check(end.qp.PostSend({.opcode = Opcode::kWrite,
                         .local = end.region.slice(kOutbox, kSmall),
                         .remote = end.peer.at(kInbox),
                         .flags = signaled ? SendFlags::kSignaled : SendFlags::kNone}));
  const uint64_t due = care == Care::kNothing ? number / kSignalEvery : number;
  if (care != Care::kPoll) {
    while (end.sent != due) end.Poll();
  }
}

Row Writes(const char* name, Care client, Care server) {
  const Setup setup{.send_queue = 2 * kSignalEvery};
  Row row;
  row.name = name;
  row.serve = [setup, server](const Options& options, Shared& shared) {
    const auto end = Accept(options, shared, setup);
    for (uint64_t answered = 0; !Stopped(shared);) {
      if (server == Care::kPoll) end->Poll();
      if (end->Inbox() != answered) WritePing(*end, ++answered, server);
    }
    Leave(*end, shared);
  };
  row.measure = [setup, client](const Options& options, Shared& shared) {
    const auto end = Connect(options, shared, setup);
    return Measure(options, *end, shared, [&](uint64_t number) {
      WritePing(*end, number, client);
      while (end->Inbox() != number) {
        if (client == Care::kPoll) end->Poll();
      }
    });
  };
  return row;
}

}  // namespace

std::vector<Row> PingRows() {
  return {Sends("send_ping", false),
          Sends("event_ping", true),
          Writes("write_ping", Care::kPoll, Care::kPoll),
          Writes("write_ping_perftest", Care::kOwn, Care::kOwn),
          Writes("write_ping_one_polls", Care::kPoll, Care::kNothing),
          Writes("write_ping_none_polls", Care::kNothing, Care::kNothing)};
}

}  // namespace verbena::bench
