// SPDX-License-Identifier: Apache-2.0
// Options that objects are made and connected with. Every member has a default that serves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "transport/access.h"
#include "transport/qp_state.h"

namespace verbena {

class CompletionChannel;
class CompletionQueue;
class SharedReceiveQueue;

enum class Notify : uint8_t { kAny, kSolicited };  // kSolicited: solicited receives and errors
enum class Signal : uint8_t { kAll, kSelective };  // kSelective: only SendFlags::kSignaled

// kAuto: RDMA where both ends have it and it is proven to reach the peer, else TCP. kRequired: RDMA
// or an error, and peers may be any that use rdma_cm. A context of kRequired has no TCP device, and
// no call on it may ask for less.
enum class Rdma : uint8_t { kOff, kAuto, kRequired };
const char* RdmaName(Rdma rdma);  // "auto"

struct ContextOptions {
  // "auto" (TCP and RDMA hardware), "tcp", "tcp:ADDRESS" (listen and connect from that address
  // only), "verbs:NAME" (TCP and that device, hardware or not), "verbs" (TCP and every RDMA
  // device).
  // Empty: the environment's VERBENA_DEVICE, else "auto".
  std::string device = {};
  // Empty: the environment's VERBENA_RDMA (off, auto, required), else auto.
  std::optional<Rdma> rdma = {};
};

struct RegisterOptions {
  // The address that peers and Sge use for the first byte; 0: the host address.
  uint64_t iova = 0;
};

struct CqOptions {
  uint32_t entries = 256;  // at least so many; what it got: CompletionQueue::entries()
  CompletionChannel* channel = nullptr;
  void* context = nullptr;  // returned in events
};

struct CqEvent {
  void* context = nullptr;  // CqOptions::context
};

struct SrqLimits {
  uint32_t max_wr = 256;
  uint32_t max_sge = 4;
  uint32_t limit = 0;  // 0: not armed
};

struct SrqOptions {
  SrqLimits limits = {};
  void* context = nullptr;
};

struct QueuePairOptions {
  QpType type = QpType::kRc;
  CompletionQueue* send_cq = nullptr;     // required
  CompletionQueue* receive_cq = nullptr;  // required; may be the same
  SharedReceiveQueue* shared_receive_queue = nullptr;
  QpLimits limits = {};
  Signal signal = Signal::kAll;
  Access access = Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead |
                  Access::kRemoteAtomic;  // what peers may do at all; regions narrow it
  void* context = nullptr;
};

// Where datagrams go: a numeric IP of a peer ("10.0.0.1", "fe80::1%eth0"), or of a multicast group.
struct AddressHandleOptions {
  std::string address = {};
  uint8_t traffic_class = 0;  // of the packets: DSCP × 4. 0: the system's
  uint8_t hop_limit = 64;     // of packets to groups
};

// What this end insists on; a peer that cannot is refused in the hand-shake, with the reason.
struct Require {
  bool atomics = false;
  bool immediate = false;
  bool rnr = false;
  bool remote_completion = false;  // iWARP devices and plain peers: only if this is set
};

// Of connections over TCP and iWARP devices, where no path says what a queue pair shall wait for.
inline constexpr uint8_t kDefaultTimeout = 18;  // 1.07 s × 8
inline constexpr uint8_t kDefaultRetryCount = 7;

// rdma_conn_param(3)'s. Depths are an offer: the queue pair gets the smaller of both ends'.
struct ConnectParameters {
  std::string private_data = {};            // at most DeviceAttributes::private_data_connect bytes
  uint32_t initiator_depth = 128;           // ORD
  uint32_t responder_resources = 128;       // IRD
  uint8_t rnr_retry = 7;                    // 7: for ever
  std::optional<uint8_t> retry_count = {};  // empty: kDefaultRetryCount
  // Code, see QpModify. Empty: as the path needs (InfiniBand, RoCE), else kDefaultTimeout.
  std::optional<uint8_t> timeout = {};
  // Of this end's packets: DSCP × 4, as RDMA_OPTION_ID_TOS and IP_TOS. 0: the system's. Without
  // the bit Capabilities::traffic_class nothing comes of it.
  uint8_t traffic_class = 0;
  Require require = {};
  absl::Duration deadline = absl::Seconds(10);  // for the whole hand-shake
};

struct AcceptParameters {
  std::string private_data = {};
  uint32_t initiator_depth = 128;
  uint32_t responder_resources = 128;
  uint8_t rnr_retry = 7;
  // Empty: as above; InfiniBand's and RoCE's request carries the caller's retry_count.
  std::optional<uint8_t> retry_count = {};
  std::optional<uint8_t> timeout = {};
  // As above. 0 on a device: the caller's, which InfiniBand's and RoCE's request carries.
  uint8_t traffic_class = 0;
  Require require = {};
};

// What became of a connect.
struct ConnectOutcome {
  enum class Kind : uint8_t { kPending, kEstablished, kRejected, kUnreachable };
  Kind kind = Kind::kPending;
  std::string private_data = {};  // the acceptor's, or the rejecter's
  absl::Status status = {};       // of kRejected and kUnreachable
};

struct ListenOptions {
  int backlog = 1024;  // connection requests that may wait for an answer
  absl::Duration handshake_deadline = absl::Seconds(5);
  std::optional<Rdma> rdma = {};  // empty: the context's
};

struct ResolveOptions {
  absl::Duration deadline = absl::Seconds(10);
  std::optional<Rdma> rdma = {};  // empty: the context's
};

// Which device a connection uses and why, candidate by candidate.
struct Candidate {
  std::string device = {};
  bool chosen = false;
  std::string reason = {};
};

struct ConnectionInfo {
  std::string local = {};  // "10.0.0.1:7471"
  std::string peer = {};
  bool own_peer = false;  // the far end is Verbena and speaks our extensions
  std::vector<Candidate> candidates = {};
};

// Text of a peer, fit for logs and terminals: printable ASCII, and `?` for every other byte.
std::string PlainText(absl::string_view text);
// At most that many bytes for the wire: what is longer ends in "...", behind a word.
std::string Shortened(absl::string_view text, size_t most);

// For people: "tcp (kernel TCP); not rxe0 (no answer within 1s)".
std::string Explain(const ConnectionInfo& info);

}  // namespace verbena
