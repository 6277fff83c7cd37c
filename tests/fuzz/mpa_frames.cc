// SPDX-License-Identifier: Apache-2.0
// The hand-shake, as either end: whatever arrives, frame by frame or byte by byte.
#include <string>
#include <vector>

#include "fallback/engine/handshake.h"
#include "fallback/wire/mpa.h"
#include "tests/fuzz/input.h"

namespace verbena::fuzz {
namespace {

using Frame = std::vector<std::byte>;

// As a socket delivers it. Nothing: no frame, or none yet.
Frame Collect(std::span<const std::byte> stream, size_t most) {
  engine::FrameReader reader;
  while (!stream.empty()) {
    const std::span<std::byte> space = reader.Space();
    FUZZ_CHECK(!space.empty());
    const size_t n = std::min({space.size(), stream.size(), most});
    std::copy_n(stream.begin(), n, space.begin());
    stream = stream.subspan(n);
    const absl::StatusOr<bool> complete = reader.Received(n);
    if (!complete.ok()) return {};
    if (*complete) return {reader.frame().begin(), reader.frame().end()};
  }
  return {};
}

engine::Offer MakeOffer(Input* input) {
  engine::Offer offer;
  const uint8_t bits = input->Byte();
  offer.initiator_depth = input->Byte();
  offer.responder_resources = input->Byte();
  offer.require = {.atomics = (bits & 1) != 0,
                   .immediate = (bits & 2) != 0,
                   .rnr = (bits & 4) != 0,
                   .remote_completion = (bits & 8) != 0};
  offer.rendezvous = (bits & 0x30) == 0x30;
  offer.private_data.assign(input->Byte() % 57, 'p');
  return offer;
}

void CheckSession(const engine::Session& s, const engine::Offer& mine) {
  FUZZ_CHECK(s.ord <= std::max(mine.initiator_depth, 1u) && s.ord <= engine::kMaxDepth);
  // An initiator serves as many reads as the responder wants, beyond its own offer, as far as there
  // are places (RFC 6581 9.1).
  FUZZ_CHECK(s.ird <= engine::kMaxDepth);
  FUZZ_CHECK(s.initiator || s.ird <= std::max(mine.responder_resources, 1u));
  FUZZ_CHECK(s.features.max_payload <= uint32_t{wire::kMaxFpduKib} * 1024);
  FUZZ_CHECK(!s.features.has(wire::kRnr) || s.features.has(wire::kAcknowledge));
}

// Whatever this end answers is a frame that the other end can read.
void CheckAnswer(const Frame& answer, bool rejects) {
  const absl::StatusOr<wire::MpaFrame> f = wire::DecodeMpa(answer);
  FUZZ_CHECK(f.ok(), std::string(f.status().message()));
  FUZZ_CHECK(f->reply && f->rejected == rejects && !f->markers);
}

void Respond(const Frame& frame, const engine::Offer& mine) {
  const absl::StatusOr<engine::PeerRequest> peer = engine::DecodeRequest(frame);
  if (!peer.ok()) {
    const Frame refusal = engine::EncodeRefusal(frame, peer.status());
    if (!refusal.empty()) CheckAnswer(refusal, true);
    return;
  }
  CheckAnswer(engine::EncodeReject(*peer, std::string(148, 'r')), true);
  const absl::StatusOr<engine::Session> session = engine::Agree(*peer, mine);
  if (!session.ok()) return;
  CheckSession(*session, mine);
  const Frame reply = engine::EncodeReply(*peer, mine, *session);
  CheckAnswer(reply, false);
  const absl::StatusOr<wire::MpaFrame> f = wire::DecodeMpa(reply);
  FUZZ_CHECK(f->rtr_send + f->rtr_write + f->rtr_read == (f->peer_to_peer ? 1 : 0));
  FUZZ_CHECK(f->enhanced == peer->frame.enhanced && f->revision == peer->frame.revision);
  FUZZ_CHECK(f->crc || !peer->frame.crc, "either side's wish turns CRC on");
}

void Run(Input input) {
  const engine::Offer mine = MakeOffer(&input);
  const size_t most = input.Byte() % 2 == 0 ? SIZE_MAX : 1;
  const Frame frame = Collect(input.Rest(), most);
  if (frame.empty()) return;
  const absl::StatusOr<wire::MpaFrame> decoded = wire::DecodeMpa(frame);
  FUZZ_CHECK(decoded.ok(), "what the reader takes for whole is whole");
  Respond(frame, mine);
  const absl::StatusOr<engine::PeerReply> reply = engine::DecodeReply(frame, mine);
  if (reply.ok() && !reply->rejected) CheckSession(reply->session, mine);
  // What can be said again is said the same.
  Frame again(wire::kMpaMaxFrame);
  again.resize(wire::EncodeMpa(*decoded, again));
  if (again.empty()) return;
  const absl::StatusOr<wire::MpaFrame> twice = wire::DecodeMpa(again);
  FUZZ_CHECK(twice.ok() && twice->ird == decoded->ird && twice->ord == decoded->ord);
  FUZZ_CHECK(std::equal(twice->private_data.begin(), twice->private_data.end(),
                        decoded->private_data.begin(), decoded->private_data.end()));
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
