// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/violations.h"

#include <algorithm>

namespace verbena::interop {

namespace {

using engine::MakeFpdu;
using engine::operator+;
using engine::SendHeader;
using engine::UntaggedOf;
using engine::WriteHeader;
using wire::Opcode;
namespace error = wire::error;

template <typename Header, typename Change>
Bytes With(Header h, Change change) {
  h.length = static_cast<uint16_t>(sizeof(Header) - wire::kLengthSize + 8);
  change(h);
  return MakeFpdu(h, Bytes(8));
}

Bytes Read(const MemoryRegion& from, uint64_t offset, uint32_t size, uint32_t msn = 1) {
  wire::ReadRequest body;
  body.sink_stag = 5;
  body.size = size;
  body.source_stag = from.remote_key();
  body.source_offset = from.address() + offset;
  return MakeFpdu(UntaggedOf(Opcode::kReadRequest, msn), wire::AsBytes(body));
}
Bytes Write(const MemoryRegion& to, uint64_t offset, size_t size) {
  return MakeFpdu(WriteHeader(to.remote_key(), to.address() + offset), Bytes(size));
}
Bytes ManyReads(const Target& t) {  // more than siw has places for, too
  Bytes all;
  for (uint32_t i = 1; i <= 300; ++i) all = std::move(all) + Read(t.end.region, 0, 8, i);
  return all;
}
Bytes WithWrongCrc(Bytes fpdu) {
  fpdu.back() ^= std::byte{1};
  return fpdu;
}

constexpr auto kAccessEvent = EventType::kQpAccessError;
constexpr auto kRequestEvent = EventType::kQpRequestError;
constexpr auto kFlushed = WcStatus::kFlushed;

// SIW_WC_GENERAL_ERR (siw_qp_rx.c siw_rdmap_complete), and what verbs/polling.cc takes that for.
constexpr auto kNoneOfItsOwn = WcStatus::kLocalProtectionError;

constexpr SiwWord kSiwStag{0x11, 0, 3, WcStatus::kRemoteAccessError,
                           "DDP tagged buffer: invalid STag"};
constexpr SiwWord kSiwBounds{0x11, 1, 3, WcStatus::kRemoteAccessError, "DDP tagged buffer: base"};
constexpr SiwWord kSiwReadBounds{0x10, 1, 7, WcStatus::kRemoteAccessError, "RDMAP: base or bounds"};
constexpr SiwWord kSiwReads{0x20, 7, 3, WcStatus::kRemoteOperationError,
                            "RDMAP: catastrophic error of"};
constexpr SiwWord kSiwNoBuffer{0x21, 2, 3, WcStatus::kRnrRetryExceeded, "no receive buffer"};
constexpr SiwWord kSiwMsn{0x21, 3, 3, WcStatus::kRemoteInvalidRequest, "message sequence number"};
constexpr SiwWord kSiwOffset{0x21, 4, 3, WcStatus::kRemoteInvalidRequest, "invalid message offset"};
constexpr SiwWord kSiwQueue{0x21, 1, 3, WcStatus::kRemoteInvalidRequest, "invalid queue number"};
constexpr SiwWord kSiwCatastrophe{0x01, 0, 3, WcStatus::kRemoteOperationError,
                                  "DDP: local catastrophic"};
// Without a flag nothing tells siw's order from the RFC's, but that a number is assigned.
constexpr SiwWord kSiwTagged{0x11, 4, 0, WcStatus::kRemoteAccessError,
                             "DDP tagged buffer: invalid version"};
constexpr SiwWord kSiwUntagged{0x21, 6, 0, WcStatus::kRemoteInvalidRequest,
                               "DDP untagged buffer: invalid version"};
constexpr SiwWord kSiwCrc{0x02, 2, 0, WcStatus::kRetryExceeded, "MPA: CRC mismatch"};
constexpr SiwWord kSiwFpdu{0x02, 3, 0, WcStatus::kRetryExceeded, "MPA: marker and ULPDU length"};
constexpr SiwWord kSiwRdmapVersion{0x20, 5, 0, WcStatus::kRetryExceeded,
                                   "(or: RDMAP: invalid version)"};
constexpr SiwWord kSiwOpcode{0x20, 6, 0, WcStatus::kRetryExceeded,
                             "(or: RDMAP: unexpected opcode)"};

const Violation kViolations[] = {
    {"WritesToAKeyThatIsNone", [](auto&) { return MakeFpdu(WriteHeader(0xdead, 0), Bytes(8)); },
     error::kStag, kAccessEvent, kSiwStag},
    {"WritesPastTheEnd", [](auto& t) { return Write(t.write_only, 60, 8); }, error::kBounds,
     kAccessEvent, kSiwBounds},
    {"WritesWhereItMayRead", [](auto& t) { return Write(t.read_only, 0, 8); }, error::kStag,
     kAccessEvent, kSiwStag},
    {"ReadsPastTheEnd", [](auto& t) { return Read(t.read_only, 60, 8); }, error::kReadBounds,
     kAccessEvent, kSiwReadBounds},
    // siw looks at no right of a read (tests/soft_rdma/deviations/siw.txt), nor at its queue
    // (siw_qp_rx.c siw_init_rresp).
    {"ReadsWhereItMayWrite",
     [](auto& t) { return Read(t.write_only, 0, 8); },
     error::kAccess,
     kAccessEvent,
     {}},
    {"ReadsOnAQueueThatIsNone",
     [](auto& t) {
       Bytes fpdu = Read(t.end.region, 0, 8);
       fpdu[11] = std::byte{4};
       return fpdu;
     },
     error::kQueueNumber,
     kRequestEvent,
     {}},
    {"ReadsMoreAtOnceThanAgreed", ManyReads, error::kStreamCatastrophic, kRequestEvent, kSiwReads,
     kFlushed, kFlushed, /*crc=*/false, /*siw_may_say_nothing=*/true},
    {"SendsWhatDoesNotFit", [](auto&) { return MakeFpdu(SendHeader(1), Bytes(17)); },
     error::kTooLong, kRequestEvent, kSiwNoBuffer, WcStatus::kLocalLengthError},
    {"SendsTwiceForOneReceive",
     [](auto&) { return MakeFpdu(SendHeader(1), Bytes(16)) + MakeFpdu(SendHeader(2), Bytes(1)); },
     error::kNoBuffer, kRequestEvent, kSiwNoBuffer, WcStatus::kSuccess},
    {"SkipsAMessageNumber", [](auto&) { return MakeFpdu(SendHeader(2), Bytes(8)); }, error::kMsn,
     kRequestEvent, kSiwMsn, kFlushed, kNoneOfItsOwn},
    {"SkipsANumberOfItsReads", [](auto& t) { return Read(t.end.region, 0, 8, 2); }, error::kMsn,
     kRequestEvent, kSiwMsn},
    {"SkipsAnOffset", [](auto&) { return MakeFpdu(SendHeader(1, 4), Bytes(8)); },
     error::kMessageOffset, kRequestEvent, kSiwOffset, kFlushed, kNoneOfItsOwn},
    {"NamesAQueueThatIsNone",
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.queue_number = 4; }); },
     error::kQueueNumber, kRequestEvent, kSiwQueue, kFlushed, kNoneOfItsOwn},
    {"WritesInAnotherVersionOfDdp",
     [](auto& t) {
       return With(WriteHeader(t.write_only.remote_key(), t.write_only.address()),
                   [](auto& h) { h.ddp ^= 2; });
     },
     error::kTaggedVersion, kRequestEvent, kSiwTagged},
    {"SendsInAnotherVersionOfDdp",
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.ddp ^= 2; }); },
     error::kUntaggedVersion, kRequestEvent, kSiwUntagged},
    {"SendsInAnotherVersionOfRdmap",
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.rdmap ^= 0xc0; }); },
     error::kRdmapVersion, kRequestEvent, kSiwRdmapVersion},
    {"SaysAnOpcodeThatIsNone",
     [](auto&) { return MakeFpdu(UntaggedOf(static_cast<Opcode>(0xd), 1), Bytes(8)); },
     error::kUnexpectedOpcode, kRequestEvent, kSiwOpcode},
    {"IsShorterThanItsHeader",
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.length = 17; }); }, error::kFpdu,
     kRequestEvent, kSiwFpdu},
    {"AnswersWhatNobodyAsked", [](auto&) { return Answer({}, 8); }, error::kStag, kRequestEvent,
     kSiwCatastrophe},
    {"MiscountsTheCrc", [](auto&) { return WithWrongCrc(MakeFpdu(SendHeader(1), Bytes(8), true)); },
     error::kCrc, kRequestEvent, kSiwCrc, kFlushed, kNoneOfItsOwn, /*crc=*/true},
};

const WrongAnswer kWrongAnswers[] = {
    {"ToAnotherKey", [](auto& r) { return Answer(r, 8, 1); }, error::kStag,
     "BAD_RESP_ERR WR_FLUSH_ERR", kSiwStag},
    {"ToAnotherPlace", [](auto& r) { return Answer(r, 8, 0, 8); }, error::kBounds,
     "BAD_RESP_ERR WR_FLUSH_ERR", kSiwBounds},
    {"TooLittle", [](auto& r) { return Answer(r, 7); }, error::kBounds, "BAD_RESP_ERR WR_FLUSH_ERR",
     kSiwBounds},
    {"TooMuch", [](auto& r) { return Answer(r, 9); }, error::kBounds, "BAD_RESP_ERR WR_FLUSH_ERR",
     kSiwBounds},
    {"WithAWrongCrc", [](auto& r) { return WithWrongCrc(Answer(r, 8, 0, 0, true)); }, error::kCrc,
     "WR_FLUSH_ERR WR_FLUSH_ERR", kSiwCrc, /*crc=*/true},
    {"WithASendOutOfSequence", [](auto&) { return MakeFpdu(SendHeader(2), Bytes(8)); }, error::kMsn,
     "WR_FLUSH_ERR WR_FLUSH_ERR", kSiwMsn},
    {"WithAnotherVersionOfRdmap",
     [](auto& r) {
       Bytes fpdu = Answer(r, 8);
       fpdu[3] ^= std::byte{0xc0};
       return fpdu;
     },
     error::kRdmapVersion, "WR_FLUSH_ERR WR_FLUSH_ERR", kSiwRdmapVersion},
};

Bytes SiwTerminate(const SiwWord& word, std::span<const std::byte> fpdu) {
  Bytes body = {std::byte(word.type_layer), std::byte(word.code), std::byte(word.flags),
                std::byte{}};
  if (word.flags == 0) return body;
  // Of the segment it tells not the length but that of the payload behind siw's own header, which
  // for a Read Request is all of it.
  const bool tagged = wire::IsTagged(static_cast<uint8_t>(fpdu[2]));
  const bool read = wire::OpcodeOf(static_cast<uint8_t>(fpdu[3])) == Opcode::kReadRequest;
  const uint32_t header = tagged ? wire::kTaggedUlpdu : wire::kUntaggedUlpdu;
  const uint32_t body_of_read = read ? sizeof(wire::ReadRequest) : 0;
  const auto length = wire::Load<wire::Be16>(fpdu.data()) - header - body_of_read;
  body.resize(body.size() + sizeof(wire::Be16));
  wire::Store(&body[4], wire::Be16(static_cast<uint16_t>(length)));
  const bool whole = (word.flags & 4) != 0;
  const auto returned = fpdu.subspan(2, header + (whole ? body_of_read : 0));
  body.insert(body.end(), returned.begin(), returned.end());
  // What it refuses as it answers has its size for a number.
  if (whole) std::copy_n(&fpdu[20 + 12], 4, &body[6 + 10]);
  return body;
}

}  // namespace

std::vector<Bytes> SiwTerminates(const SiwWord& word, const Bytes& stream) {
  std::vector<Bytes> bodies;
  for (size_t at = 0; at < stream.size();) {
    const std::span<const std::byte> rest = std::span(stream).subspan(at);
    bodies.push_back(SiwTerminate(word, rest));
    at += wire::FpduSizeOfUlpdu(wire::Load<wire::Be16>(rest.data()));
  }
  return bodies;
}

Bytes Answer(const wire::ReadRequest& r, size_t size, uint32_t stag_off, uint64_t offset,
             bool crc) {
  wire::TaggedHeader h = WriteHeader(r.sink_stag + stag_off, r.sink_offset + offset);
  h.rdmap = wire::RdmapByte(Opcode::kReadResponse);
  return MakeFpdu(h, Bytes(size, std::byte{7}), crc);
}

std::span<const Violation> Violations() { return kViolations; }
std::span<const WrongAnswer> WrongAnswers() { return kWrongAnswers; }

}  // namespace verbena::interop
