// SPDX-License-Identifier: Apache-2.0
//
// Whole frames, as they stand in docs/wire.md: change both together. The CRC values come from
// another implementation (bit by bit), the layout from the RFCs.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fallback/wire/bytes.h"
#include "fallback/wire/control.h"
#include "fallback/wire/crc32c.h"
#include "fallback/wire/ddp.h"
#include "fallback/wire/extension.h"
#include "fallback/wire/mpa.h"
#include "fallback/wire/rdmap.h"
#include "fallback/wire/terminate.h"
#include "fallback/wire/test_bytes.h"
#include "gtest/gtest.h"

namespace verbena::wire {
namespace {

using Bytes = std::vector<std::byte>;
constexpr uint32_t kStag = 0x00abcd12;

void Add(Bytes& to, std::span<const std::byte> more) {
  to.insert(to.end(), more.begin(), more.end());
}

template <typename Header>
std::string Fpdu(Header h, std::span<const std::byte> payload) {
  h.length = static_cast<uint16_t>(sizeof(Header) - kLengthSize + payload.size());
  h.ddp |= kLast;
  EXPECT_FALSE(Invalid(h)) << Invalid(h).why;
  Bytes all;
  Add(all, AsBytes(h));
  Add(all, payload);
  all.resize(all.size() + PadBytes(payload.size()));
  Add(all, AsBytes(WireCrc(Crc32c(kCrcBegin, all))));
  EXPECT_EQ(all.size(), FpduSize(sizeof(Header), payload.size()));
  EXPECT_EQ(all.size(), FpduSizeOfUlpdu(h.length));
  return ToHex(all);
}

TaggedHeader Tagged(Opcode op, uint32_t stag, uint64_t offset) {
  TaggedHeader h;
  h.rdmap = RdmapByte(op);
  h.stag = stag;
  h.tagged_offset = offset;
  return h;
}

UntaggedHeader Untagged(uint8_t rdmap, uint32_t ulp, uint32_t queue, uint32_t msn) {
  UntaggedHeader h;
  h.rdmap = rdmap;
  h.ulp = ulp;
  h.queue_number = queue;
  h.msn = msn;
  return h;
}

TEST(Fpdu, Write) {
  EXPECT_EQ(Fpdu(Tagged(Opcode::kWrite, kStag, 0x700012345678), Chars("hello")),
            Golden("0013 c1 40 00abcd12 0000700012345678 68656c6c6f 000000 6473e181"));
}

TEST(Fpdu, Send) {
  EXPECT_EQ(Fpdu(Untagged(RdmapByte(Opcode::kSend), 0, kSendQueue, 7), Chars("hello")),
            Golden("0017 41 43 00000000 00000000 00000007 00000000 68656c6c6f 000000 e7015dae"));
}

TEST(Fpdu, SendInvalidate) {
  EXPECT_EQ(Fpdu(Untagged(RdmapByte(Opcode::kSendInvalidate), kStag, kSendQueue, 8), {}),
            Golden("0012 41 44 00abcd12 00000000 00000008 00000000 c58665c5"));
}

TEST(Fpdu, SendWithImmediateAndAckRequest) {
  const uint8_t rdmap = RdmapByte(Opcode::kSend) | kWithImmediate | kAckRequest;
  EXPECT_EQ(Fpdu(Untagged(rdmap, 0xcafe0001, kSendQueue, 9), Chars("hello")),
            Golden("0017 41 73 cafe0001 00000000 00000009 00000000 68656c6c6f 000000 2c993545"));
}

TEST(Fpdu, ReadRequest) {
  const auto body = Hex("11223344 00007f0000001000 00010000 55667788 00007e0000002000");
  EXPECT_EQ(Fpdu(Untagged(RdmapByte(Opcode::kReadRequest), 0, kReadRequestQueue, 1), body),
            Golden("002e 41 41 00000000 00000001 00000001 00000000 11223344 00007f0000001000"
                   "00010000 55667788 00007e0000002000 0729e5c7"));
}

TEST(Fpdu, ReadResponse) {
  EXPECT_EQ(Fpdu(Tagged(Opcode::kReadResponse, 0x11223344, 0x7f0000001000), Chars("hello")),
            Golden("0013 c1 42 11223344 00007f0000001000 68656c6c6f 000000 bb24732b"));
}

TEST(Fpdu, ImmediateAfterAWrite) {
  Immediate body;
  body.value = 0xcafe0001;
  const uint8_t rdmap = RdmapByte(Opcode::kImmediate) | kAckRequest;
  EXPECT_EQ(Fpdu(Untagged(rdmap, 0, kSendQueue, 10), AsBytes(body)),
            Golden("001a 41 68 00000000 00000000 0000000a 00000000 cafe0001 00000000 0791071a"));
}

TEST(Fpdu, AtomicRequest) {
  const AtomicRequest body = MakeFetchAdd(9, kStag, 0x1000, 1);
  EXPECT_EQ(
      Fpdu(Untagged(RdmapByte(Opcode::kAtomicRequest), 0, kReadRequestQueue, 2), AsBytes(body)),
      Golden("0046 41 4a 00000000 00000001 00000002 00000000 00000000 00000009 00abcd12"
             "0000000000001000 0000000000000001 0000000000000000 0000000000000000"
             "ffffffffffffffff 6124c5c2"));
}

TEST(Fpdu, AtomicResponse) {
  AtomicResponse body;
  body.request_id = 9;
  body.original = 41;
  EXPECT_EQ(
      Fpdu(Untagged(RdmapByte(Opcode::kAtomicResponse), 0, kAtomicResponseQueue, 1), AsBytes(body)),
      Golden("001e 41 4b 00000000 00000003 00000001 00000000 00000009 0000000000000029 7c018263"));
}

TEST(Fpdu, Terminate) {
  const auto offender = Hex("c140 00abcd12 0000700012345678");
  Terminate t;
  t.error = error::kStag;
  t.segment_length = 19;
  t.ddp_header = offender;
  Bytes body(kMaxTerminateBody);
  body.resize(EncodeTerminate(t, body));
  EXPECT_EQ(Fpdu(Untagged(RdmapByte(Opcode::kTerminate), 0, kTerminateQueue, 1), body),
            Golden("0026 41 47 00000000 00000002 00000001 00000000 1100c000 0013 c140 00abcd12"
                   "0000700012345678 f5bb9e58"));
}

TEST(Fpdu, Acknowledgement) {
  EXPECT_EQ(Fpdu(MakeControl({ControlType::kAck, NakCode::kNone, 7, 0}), {}),
            Golden("0012 41 4f 01000000 0000000f 00000007 00000000 54231157"));
}

TEST(Fpdu, NakWithText) {
  EXPECT_EQ(
      Fpdu(MakeControl({ControlType::kNak, NakCode::kRemoteAccess, 6, 0}), Chars("read-only")),
      Golden("001b 41 4f 05010000 0000000f 00000006 00000000 726561642d6f6e6c79 000000"
             "216857af"));
}

std::string Handshake(MpaFrame frame, uint8_t role) {
  Bytes private_data;
  Add(private_data, Chars("hi"));
  private_data.resize(2 + sizeof(RecordBytes));
  const uint32_t features = kAcknowledge | kRnr | kImmediate | kAtomics | kLargeFpdu;
  AppendRecord({role, kMaxFpduKib, features, kAcknowledge}, std::span(private_data).subspan(2));
  frame.enhanced = frame.peer_to_peer = frame.rtr_read = true;
  frame.ird = frame.ord = 16;
  frame.private_data = private_data;
  Bytes out(kMpaMaxFrame);
  out.resize(EncodeMpa(frame, out));

  // And back: the far end finds the record and the application's two bytes.
  const auto decoded = DecodeMpa(out);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  const auto found = FindRecord(decoded->private_data, role);
  EXPECT_TRUE(found && found->application.size() == 2);
  return ToHex(out);
}

TEST(Handshake, RequestOfAVerbenaEnd) {
  MpaFrame request;
  request.rtr_write = true;
  EXPECT_EQ(Handshake(request, kRoleRequest),
            Golden("4d504120494420526571204672616d65 10 02 0016 8010 c010 6869"
                   "56726231 01 01 10 3c 0000001f 00000001"));
}

TEST(Handshake, ReplyOfAVerbenaEnd) {
  MpaFrame reply;
  reply.reply = true;
  EXPECT_EQ(Handshake(reply, kRoleReply),
            Golden("4d504120494420526570204672616d65 10 02 0016 8010 4010 6869"
                   "56726231 01 02 10 3c 0000001f 00000001"));
}

}  // namespace
}  // namespace verbena::wire
