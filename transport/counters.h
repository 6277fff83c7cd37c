// SPDX-License-Identifier: Apache-2.0
// Snapshots of what an object has done since it was made. Each member counts events, or bytes where
// it says so. Reading is cheap, safe from any thread, and not a consistent cut.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace verbena {

struct QpCounters {
  uint64_t sends_posted = 0;
  uint64_t receives_posted = 0;
  uint64_t send_completions = 0;  // signalled or not, successful or not
  uint64_t receive_completions = 0;
  uint64_t bytes_sent = 0;  // on the wire, headers included
  uint64_t bytes_received = 0;
  uint64_t send_calls = 0;  // system calls
  uint64_t receive_calls = 0;
  uint64_t acks_sent = 0;
  uint64_t acks_received = 0;
  uint64_t rnr_naks_sent = 0;
  uint64_t rnr_naks_received = 0;
  uint64_t remote_reads = 0;  // served for the peer
  uint64_t remote_writes = 0;
  uint64_t remote_atomics = 0;
  uint64_t protection_errors = 0;  // peer requests refused
  // QpType::kUd and kUc: messages that came and were dropped.
  uint64_t dropped_no_receive = 0;  // none posted, or the next one too small
  uint64_t dropped_qkey = 0;        // kUd
  // kUd: malformed, for nobody here, or in a state that takes none. kUc: broken off by the sender,
  // or not allowed, which protection_errors counts as well.
  uint64_t dropped_other = 0;
};

struct CqCounters {
  uint64_t completions = 0;
  uint64_t polls = 0;
  uint64_t empty_polls = 0;
  uint64_t notifications = 0;
  uint64_t overflows = 0;
};

struct SrqCounters {
  uint64_t posted = 0;
  uint64_t taken = 0;
  uint64_t limit_events = 0;
  uint64_t empty = 0;  // a message found no receive
};

struct DeviceCounters {
  uint64_t queue_pairs = 0;       // open now
  uint64_t regions = 0;           // registered now
  uint64_t registered_bytes = 0;  // now
  uint64_t connects = 0;
  uint64_t accepts = 0;
  uint64_t rejects = 0;
  uint64_t handshake_failures = 0;
  uint64_t service_wakeups = 0;  // how often the service thread woke
};

// What became of choices between devices.
struct ContextCounters {
  std::map<std::string, uint64_t> connections = {};  // accepted and begun, by device: "tcp", "rxe0"
  std::map<std::string, uint64_t> refusals = {};     // of RDMA, by reason: "unreachable"
  // Of those connections, by candidate that did not serve and why: "rxe0: its port is down". At
  // most 256, as peers have words of their own; the rest is "others".
  std::map<std::string, uint64_t> not_taken = {};
};

struct RegionCounters {
  uint64_t remote_reads = 0;
  uint64_t remote_writes = 0;
  uint64_t remote_atomics = 0;
};

struct WindowCounters {
  uint64_t binds = 0;  // posted
  uint64_t remote_reads = 0;
  uint64_t remote_writes = 0;
  uint64_t remote_atomics = 0;
};

struct DomainCounters {
  uint64_t objects = 0;        // open now: regions, windows, queue pairs, shared receive queues
  uint64_t registrations = 0;  // of memory
};

struct ChannelCounters {
  uint64_t events = 0;  // that came
  uint64_t taken = 0;
};

struct EventCounters {
  uint64_t events = 0;  // that came
  uint64_t taken = 0;
};

struct ListenerCounters {
  uint64_t requests = 0;
  uint64_t refused = 0;  // not MPA, too many at once, or silent
};

}  // namespace verbena
