// SPDX-License-Identifier: Apache-2.0
#include "fallback/wire/mpa.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace verbena::wire {
namespace {

bool StartsLike(std::span<const std::byte> prefix, std::string_view text) {
  const size_t n = std::min(prefix.size(), text.size());
  return n == 0 || std::memcmp(prefix.data(), text.data(), n) == 0;
}

template <typename... Args>
absl::Status Wrong(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat("MPA frame: ", args...));
}

// What the 20 bytes say about themselves; `prefix` has at least those.
absl::Status CheckHeader(const MpaHeader& header) {
  if (header.revision != 1 && header.revision != 2) {
    return Wrong("byte 17, revision ", int{header.revision},
                 ", is neither 1 nor 2 (RFC 5044 7.1.1, RFC 6581 6)");
  }
  if (header.private_data_length > kMpaMaxPrivateData) {
    return Wrong("bytes 18-19, PD_Length ", uint16_t{header.private_data_length},
                 ", exceed 512 (RFC 5044 7.1.1)");
  }
  const bool enhanced = header.revision == 2 && (header.flags & kMpaEnhanced) != 0;
  if (enhanced && header.private_data_length < sizeof(EnhancedWords)) {
    return Wrong("bytes 18-19, PD_Length ", uint16_t{header.private_data_length},
                 ", leave no room for the 4 bytes of IRD and ORD that flag S announces "
                 "(RFC 6581 6)");
  }
  return absl::OkStatus();
}

bool Encodable(const MpaFrame& f) {
  const size_t enhanced = f.enhanced ? sizeof(EnhancedWords) : 0;
  return (f.revision == 1 || f.revision == 2) && (!f.enhanced || f.revision == 2) &&
         (!f.rejected || f.reply) && !(f.ask && f.reply) && f.ird <= kMpaDepthMask &&
         f.ord <= kMpaDepthMask && f.private_data.size() + enhanced <= kMpaMaxSentPrivateData;
}

EnhancedWords EncodeEnhanced(const MpaFrame& f) {
  EnhancedWords words;
  words.ird = static_cast<uint16_t>(f.ird | (f.peer_to_peer ? kMpaPeerToPeer : 0) |
                                    (f.rtr_send ? kMpaRtrSend : 0));
  words.ord = static_cast<uint16_t>(f.ord | (f.rtr_write ? kMpaRtrWrite : 0) |
                                    (f.rtr_read ? kMpaRtrRead : 0));
  return words;
}

}  // namespace

const char* MpaKeyMismatch(std::span<const std::byte> prefix) {
  for (const std::string_view key : {kMpaRequestKey, kMpaReplyKey, kMpaAskKey}) {
    if (StartsLike(prefix, key)) return nullptr;
  }
  // The likely strangers, by name: this text is what the operator of a wrong port gets to read.
  for (const std::string_view method : {"GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "CONNECT "}) {
    if (StartsLike(prefix, method)) return "not an MPA frame but an HTTP request";
  }
  if (StartsLike(prefix, "PRI * HTTP/2")) return "not an MPA frame but an HTTP/2 preface";
  if (StartsLike(prefix, "SSH-")) return "not an MPA frame but an SSH banner";
  if (prefix[0] == std::byte{0x16}) return "not an MPA frame but a TLS handshake";
  return "not an MPA frame: bytes 0-15 are neither key (RFC 5044 7.1.1)";
}

absl::StatusOr<size_t> MpaFrameSize(std::span<const std::byte> prefix) {
  if (const char* why = MpaKeyMismatch(prefix)) return absl::InvalidArgumentError(why);
  if (prefix.size() < sizeof(MpaHeader)) return sizeof(MpaHeader);
  const auto header = Load<MpaHeader>(prefix.data());
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  return sizeof(MpaHeader) + header.private_data_length;
}

absl::StatusOr<MpaFrame> DecodeMpa(std::span<const std::byte> bytes) {
  const absl::StatusOr<size_t> size = MpaFrameSize(bytes);
  if (!size.ok()) return size.status();
  if (bytes.size() < *size) {
    return Wrong("ends at byte ", bytes.size(), " of ", *size, " (RFC 5044 7.1.1)");
  }
  if (bytes.size() > *size) {
    return Wrong("byte ", *size, " and on follow it before the handshake is over (RFC 5044 7.1.2)");
  }
  const auto header = Load<MpaHeader>(bytes.data());
  MpaFrame frame;
  frame.reply = std::memcmp(header.key, kMpaReplyKey.data(), sizeof(header.key)) == 0;
  frame.ask = std::memcmp(header.key, kMpaAskKey.data(), sizeof(header.key)) == 0;
  frame.rejected = frame.reply && (header.flags & kMpaReject) != 0;  // not checked in a Request
  frame.crc = (header.flags & kMpaCrc) != 0;
  frame.markers = (header.flags & kMpaMarkers) != 0;
  frame.revision = header.revision;
  // In revision 1 the bit of S is a reserved one.
  frame.enhanced = header.revision == 2 && (header.flags & kMpaEnhanced) != 0;
  frame.private_data = bytes.subspan(sizeof(MpaHeader));
  if (frame.enhanced) {
    const auto words = Load<EnhancedWords>(frame.private_data.data());
    frame.peer_to_peer = (words.ird & kMpaPeerToPeer) != 0;
    frame.rtr_send = (words.ird & kMpaRtrSend) != 0;
    frame.rtr_write = (words.ord & kMpaRtrWrite) != 0;
    frame.rtr_read = (words.ord & kMpaRtrRead) != 0;
    frame.ird = words.ird & kMpaDepthMask;
    frame.ord = words.ord & kMpaDepthMask;
    frame.private_data = frame.private_data.subspan(sizeof(EnhancedWords));
  }
  return frame;
}

size_t EncodeMpa(const MpaFrame& frame, std::span<std::byte> out) {
  const size_t private_data =
      frame.private_data.size() + (frame.enhanced ? sizeof(EnhancedWords) : 0);
  const size_t size = sizeof(MpaHeader) + private_data;
  if (!Encodable(frame) || out.size() < size) return 0;

  MpaHeader header;
  const std::string_view key = frame.reply ? kMpaReplyKey : frame.ask ? kMpaAskKey : kMpaRequestKey;
  std::memcpy(header.key, key.data(), sizeof(header.key));
  header.flags =
      static_cast<uint8_t>((frame.markers ? kMpaMarkers : 0) | (frame.crc ? kMpaCrc : 0) |
                           (frame.rejected ? kMpaReject : 0) | (frame.enhanced ? kMpaEnhanced : 0));
  header.revision = frame.revision;
  header.private_data_length = static_cast<uint16_t>(private_data);
  std::byte* at = Store(out.data(), header);
  if (frame.enhanced) at = Store(at, EncodeEnhanced(frame));
  std::copy(frame.private_data.begin(), frame.private_data.end(), at);
  return size;
}

}  // namespace verbena::wire
