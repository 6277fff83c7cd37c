// SPDX-License-Identifier: Apache-2.0
// What differs between providers and peers; everything that is not here is the same on all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace verbena {

// A device says "at most"; a connected queue pair says what holds with this very peer.
struct Capabilities {
  bool immediate = false;  // SendWithImm, WriteWithImm
  bool atomics = false;    // CompareSwap, FetchAdd
  bool send_with_invalidate = false;
  bool memory_windows = false;     // type 2
  bool rnr = false;                // a missing receive makes the sender wait, not fail
  bool remote_completion = false;  // a completion means: applied at the peer
  bool unguessable_keys = false;   // remote keys are random, and do not come again soon
  bool global_atomics = false;     // atomic against the target's CPU as well
  bool lazy_registration = false;  // registering memory pins nothing and touches no page
  bool peer_counters = false;      // counters tell what peers did, and what passed on the wire
  bool responder_events = false;   // events tell the target that, and why, it refused a peer
  bool own_peer_known = false;     // ConnectionInfo::own_peer tells whether the peer is Verbena
  bool out_of_band = false;        // QueuePair::address(), QueuePair::Connect
  // … and that Connect waits for the peer, and Disconnect reaches it.
  bool out_of_band_handshake = false;
  // A status tells why the peer refused, or that it is gone; without: kRemoteOperationError is all.
  bool refusal_reasons = false;
  bool queue_pair_rights = false;      // a queue pair's own access narrows what its regions grant
  bool traffic_class = false;          // packets have the traffic class that a connection asks for
  bool unreliable_datagram = false;    // queue pairs of QpType::kUd, and multicast
  bool unreliable_connection = false;  // queue pairs of QpType::kUc
};

// The names of the bits that are set, for people: "immediate atomics rnr".
std::string ToString(const Capabilities& capabilities);

// Upper limits of a device; an over-limit request names the limit and what was asked for.
struct DeviceAttributes {
  uint32_t max_queue_pairs = 0;
  uint32_t max_completion_queues = 0;
  uint32_t max_memory_regions = 0;
  uint32_t max_memory_windows = 0;
  uint32_t max_shared_receive_queues = 0;
  uint32_t max_work_requests = 0;        // a send, receive or shared queue
  uint32_t max_sge = 0;                  // entries a request
  uint32_t max_inline = 0;               // bytes
  uint32_t max_completions = 0;          // entries a completion queue
  uint32_t max_initiator_depth = 0;      // ORD
  uint32_t max_responder_resources = 0;  // IRD
  uint64_t max_message = 0;              // bytes
  uint32_t max_datagram = 0;             // bytes of one; 0: no QpType::kUd
  uint64_t max_region = 0;               // bytes
  uint32_t private_data_connect = 0;     // bytes that an application may send with …
  uint32_t private_data_accept = 0;
  uint32_t private_data_reject = 0;
};

// What two ends must have in common to connect their devices.
enum class Link : uint8_t { kNone, kInfiniband, kRoce, kIwarp };  // kNone: kernel TCP
const char* LinkName(Link link);

// One entry of Context::ListDevices().
struct DeviceInfo {
  std::string name = {};       // "tcp", "rxe0"
  std::string provider = {};   // "tcp", "verbs"
  std::string transport = {};  // "iWARP over kernel TCP"
  std::string detail = {};     // addresses, port state …
  Link link = Link::kNone;
  bool software = false;                    // rxe, siw: chosen only if named
  std::vector<std::string> addresses = {};  // numeric IPs at which peers reach an RDMA device
  bool usable = false;
  std::string reason = {};  // why it is not usable, or what it needs
};

}  // namespace verbena
