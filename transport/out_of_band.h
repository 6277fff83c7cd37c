// SPDX-License-Identifier: Apache-2.0
// The addresses of out-of-band connections: docs/decisions/0015-out-of-band.md. Plain values and
// pure functions; any thread. Programs pass the encoded form around and need none of this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "transport/capabilities.h"
#include "transport/ip.h"
#include "transport/options.h"

namespace verbena {

inline constexpr size_t kMaxContact = 512;  // bytes, encoded

using Nonce = std::array<uint8_t, 16>;

// One device, and how a peer gets to it. The last two groups only in a queue pair's address.
struct Way {
  std::string device = {};  // its name at its own end
  Link link = Link::kNone;  // kNone: TCP
  // InfiniBand and RoCE.
  Ip gid = {};
  uint8_t gid_type = 0;  // ibv_gid_type
  uint16_t lid = 0;
  uint8_t mtu = 0;  // code, IBTA
  uint8_t responder_resources = 0;
  uint32_t qp_number = 0;
  uint32_t psn = 0;
  // TCP.
  uint16_t port = 0;
  std::vector<Ip> addresses = {};  // best first

  friend bool operator==(const Way&, const Way&) = default;
};

// What one end tells the other.
struct Contact {
  bool queue_pair = false;  // else a context
  Rdma rdma = Rdma::kAuto;  // a context's wish
  Nonce nonce = {};
  std::vector<Way> ways = {};          // a queue pair has one
  std::vector<Candidate> absent = {};  // devices that are not among the ways, and why
};

// Random, from the kernel.
Nonce NewNonce();

// What does not fit is left out: reasons first, then the last ways and addresses.
std::string Encode(const Contact& contact);
// InvalidArgument: cut short, changed on the way, or no address at all. Unimplemented: of a later
// version.
absl::StatusOr<Contact> DecodeContact(absl::string_view text);

// This end's own, for ChooseDevices: the ways that the peer sees, and why there are no others.
absl::StatusOr<Contact> AsSeen(const Contact& whole);

// OK, or why a queue pair with `mine` cannot connect to `theirs`.
absl::Status CheckPeer(const Contact& mine, const Contact& theirs);

struct DevicePair {
  std::string device = {};
  std::string peer_device = {};
  std::vector<Candidate> candidates = {};  // of this end
};

// Of two contexts' contacts: the pair of devices, the same at both ends. Unavailable: there is
// none, with all reasons.
absl::StatusOr<DevicePair> ChooseDevices(const Contact& mine, const Contact& theirs);

}  // namespace verbena
