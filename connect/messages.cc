// SPDX-License-Identifier: Apache-2.0
#include "connect/messages.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "transport/options.h"

namespace verbena::connect {
namespace {

constexpr uint32_t kMagic = 0x56727331;  // "Vrs1"; another layout gets another one

// Bytes alone: no order of the host's, no alignment.
struct MagicBytes {
  uint8_t bytes[4] = {kMagic >> 24, kMagic >> 16 & 0xff, kMagic >> 8 & 0xff, kMagic & 0xff};
};

struct AskBytes {
  MagicBytes magic;
  uint8_t purpose = 0;
  uint8_t links = 0;
  uint8_t count = 0;
  uint8_t nth = 0;
  uint8_t addresses[kMaxAddresses][16] = {};
};
static_assert(sizeof(AskBytes) == 56 && alignof(AskBytes) == 1);
static_assert(offsetof(AskBytes, purpose) == 4 && offsetof(AskBytes, addresses) == 8);

struct AnswerBytes {
  MagicBytes magic;
  uint8_t reason = 0;
  uint8_t link = 0;
  uint8_t port[2] = {};
  uint8_t address[16] = {};
  uint8_t token[kTokenBytes] = {};
  uint8_t more = 0;
};
static_assert(sizeof(AnswerBytes) == 41 && alignof(AnswerBytes) == 1);
static_assert(offsetof(AnswerBytes, port) == 6 && offsetof(AnswerBytes, address) == 8);
static_assert(offsetof(AnswerBytes, token) == 24 && offsetof(AnswerBytes, more) == 40);

constexpr size_t kRefusalHeader = 8;  // magic, reason, more, 0, length of the text

bool HasMagic(absl::string_view bytes) {
  const MagicBytes magic;
  return bytes.size() >= sizeof magic && std::memcmp(bytes.data(), &magic, sizeof magic) == 0;
}

template <typename T>
std::string Raw(const T& value, size_t size = sizeof(T)) {
  return std::string(reinterpret_cast<const char*>(&value), size);
}

}  // namespace

std::string Encode(const Ask& ask) {
  AskBytes raw;
  raw.purpose = static_cast<uint8_t>(ask.purpose);
  raw.links = ask.links;
  raw.nth = ask.nth;
  raw.count = static_cast<uint8_t>(std::min(ask.addresses.size(), kMaxAddresses));
  for (size_t i = 0; i < raw.count; ++i) {
    std::copy(ask.addresses[i].begin(), ask.addresses[i].end(), raw.addresses[i]);
  }
  return Raw(raw, offsetof(AskBytes, addresses) + raw.count * sizeof(Ip));
}

std::optional<Ask> DecodeAsk(absl::string_view bytes) {
  AskBytes raw;
  if (!HasMagic(bytes) || bytes.size() < offsetof(AskBytes, addresses)) return std::nullopt;
  std::memcpy(&raw, bytes.data(), std::min(bytes.size(), sizeof raw));
  const auto purpose = static_cast<Purpose>(raw.purpose);
  if (purpose != Purpose::kProof && purpose != Purpose::kConnect) return std::nullopt;
  if (raw.count > kMaxAddresses ||
      bytes.size() < offsetof(AskBytes, addresses) + raw.count * sizeof(Ip)) {
    return std::nullopt;
  }
  Ask ask{purpose, raw.links, raw.nth, {}};
  for (size_t i = 0; i < raw.count; ++i) {
    Ip& ip = ask.addresses.emplace_back();
    std::copy(std::begin(raw.addresses[i]), std::end(raw.addresses[i]), ip.begin());
  }
  return ask;
}

std::string Encode(const Answer& answer) {
  if (answer.reason == Reason::kNone) {
    AnswerBytes raw;
    raw.link = static_cast<uint8_t>(answer.link);
    raw.port[0] = static_cast<uint8_t>(answer.port >> 8);
    raw.port[1] = static_cast<uint8_t>(answer.port);
    std::copy(answer.address.begin(), answer.address.end(), raw.address);
    std::copy(answer.token.begin(), answer.token.end(), raw.token);
    raw.more = answer.more;
    return Raw(raw);
  }
  const std::string text = Shortened(answer.text, kMaxRefusalText);
  std::string bytes = Raw(MagicBytes());
  bytes += static_cast<char>(answer.reason);
  bytes += static_cast<char>(answer.more);
  bytes += '\0';
  bytes += static_cast<char>(text.size());
  return bytes + text;
}

std::optional<Answer> DecodeAnswer(absl::string_view bytes) {
  if (!HasMagic(bytes) || bytes.size() < kRefusalHeader) return std::nullopt;
  Answer answer;
  answer.reason = static_cast<Reason>(bytes[4]);
  if (answer.reason != Reason::kNone) {
    const size_t length = static_cast<uint8_t>(bytes[7]);
    if (length > kMaxRefusalText || bytes.size() < kRefusalHeader + length) return std::nullopt;
    answer.text = PlainText(bytes.substr(kRefusalHeader, length));
    answer.more = static_cast<uint8_t>(bytes[5]);
    return answer;
  }
  AnswerBytes raw;
  if (bytes.size() < sizeof raw) return std::nullopt;
  std::memcpy(&raw, bytes.data(), sizeof raw);
  if (raw.link == 0 || raw.link > static_cast<uint8_t>(Link::kIwarp)) return std::nullopt;
  answer.link = static_cast<Link>(raw.link);
  answer.port = static_cast<uint16_t>(raw.port[0] << 8 | raw.port[1]);
  if (answer.port == 0) return std::nullopt;
  std::copy(std::begin(raw.address), std::end(raw.address), answer.address.begin());
  std::copy(std::begin(raw.token), std::end(raw.token), answer.token.begin());
  answer.more = raw.more;
  return answer;
}

bool BringsToken(absl::string_view private_data, const Token& token) {
  if (private_data.size() < token.size()) return false;
  uint8_t difference = 0;
  for (size_t i = 0; i < token.size(); ++i) {
    difference |= static_cast<uint8_t>(private_data[i]) ^ token[i];
  }
  return difference == 0;
}

absl::StatusOr<Token> NewToken() {
  Token token;
  ssize_t n;
  do {
    n = getrandom(token.data(), token.size(), 0);  // 16 bytes come whole, but for a signal
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(token.size())) return token;
  return absl::InternalError(absl::StrCat("getrandom: ", std::strerror(errno)));
}

}  // namespace verbena::connect
