// SPDX-License-Identifier: Apache-2.0
// The MPA hand-shake (RFC 5044 7.1, RFC 6581), sans I/O: frames in, frames and a Session out. One
// function a step; whoever holds the socket reads and writes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fallback/engine/queue_pair.h"
#include "fallback/wire/mpa.h"
#include "transport/options.h"

namespace verbena::engine {

// What one end brings.
struct Offer {
  std::string private_data;
  uint32_t initiator_depth = 1;
  uint32_t responder_resources = 1;
  Require require;
  bool rendezvous = false;           // asks for a way over RDMA; the answer is a reject in any case
  std::vector<Candidate> note = {};  // devices that were not chosen: for the peer to know
  bool out_of_band = false;          // private data is a call (token.h)
  uint8_t revision = 2;              // 1: the second try, see EncodeRequest
  QpType type = QpType::kRc;         // both ends have the same
};

// What an end of this type brings into the negotiation.
uint32_t FeaturesOf(QpType type);

// Collects exactly one frame: never a byte beyond it.
class FrameReader {
 public:
  std::span<std::byte> Space() { return {buffer_.data() + have_, want_ - have_}; }
  // True: the frame is complete. An error: no frame begins like this, with what it looks like.
  absl::StatusOr<bool> Received(size_t n);
  std::span<const std::byte> frame() const { return {buffer_.data(), have_}; }

 private:
  std::array<std::byte, wire::kMpaMaxFrame> buffer_;
  size_t have_ = 0;
  size_t want_ = sizeof(wire::MpaHeader);
};

// Initiator, step 1. Revision 2, every ready-to-receive frame that we can send on offer. Revision 1
// is for peers that hang up on that one; a Verbena listener rejects it, or two Verbena ends would
// silently do with less than they have.
std::vector<std::byte> EncodeRequest(const Offer& mine);

// Responder, step 1.
struct PeerRequest {
  wire::MpaFrame frame;  // private_data is empty: see below
  bool own_peer = false;
  wire::Record record;
  std::string private_data;       // the application's
  bool rendezvous = false;        // see Offer
  std::vector<Candidate> note;    // see Offer
  bool out_of_band = false;       // see Offer
  std::optional<LentBytes> lent;  // a plain peer's
};
absl::StatusOr<PeerRequest> DecodeRequest(std::span<const std::byte> frame);

// Responder, step 2. FailedPrecondition: one end requires what the other lacks, or they are of
// different types; reject with it.
absl::StatusOr<Session> Agree(const PeerRequest& peer, const Offer& mine);
std::vector<std::byte> EncodeReply(const PeerRequest& peer, const Offer& mine,
                                   const Session& session);
std::vector<std::byte> EncodeReject(const PeerRequest& peer, const std::string& private_data);
// For a frame that DecodeRequest refused because of `why`: the Reject that says so, or nothing if
// the frame is no request at all.
std::vector<std::byte> EncodeRefusal(std::span<const std::byte> frame, const absl::Status& why);

// Initiator, step 2.
struct PeerReply {
  bool rejected = false;
  bool own_peer = false;
  std::string private_data;
  Session session;
  // Not OK: the peer accepted what this end cannot take, and is owed `parting`, a Terminate
  // (RFC 6581 8), before the stream ends.
  absl::Status refused;
  std::vector<std::byte> parting;
};
absl::StatusOr<PeerReply> DecodeReply(std::span<const std::byte> frame, const Offer& mine);

}  // namespace verbena::engine
