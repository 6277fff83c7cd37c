// SPDX-License-Identifier: Apache-2.0
// What the two ends of a rendezvous say, in the private data of a connection request and of its
// rejection. Layouts: docs/wire.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "connect/address.h"
#include "connect/reason.h"
#include "transport/capabilities.h"

namespace verbena::connect {

inline constexpr size_t kTokenBytes = 16;
inline constexpr size_t kMaxAddresses = 3;     // 8 + 3 × 16 = 56, all that a request holds
inline constexpr size_t kMaxRefusalText = 96;  // bytes

using Token = std::array<uint8_t, kTokenBytes>;

enum class Purpose : uint8_t {
  kProof = 1,    // the listener's selection answers the connection, if it brings the token
  kConnect = 2,  // the listener's application does
};

// One bit for each kind of link.
constexpr uint8_t LinkBit(Link link) {
  return link == Link::kNone ? 0 : static_cast<uint8_t>(1u << (static_cast<uint8_t>(link) - 1));
}

struct Ask {
  Purpose purpose = Purpose::kProof;
  uint8_t links = 0;               // LinkBit of what the caller has
  uint8_t nth = 0;                 // 0: the listener's nearest device; else the next, and so on
  std::vector<Ip> addresses = {};  // of its devices; the listener chooses a device near them
};
std::string Encode(const Ask& ask);
std::optional<Ask> DecodeAsk(absl::string_view bytes);

// kNone: listening at `address`, `port` for one connection. Else there is no way, with a text.
struct Answer {
  Reason reason = Reason::kNone;
  std::string text = {};
  Link link = Link::kNone;
  uint16_t port = 0;
  Ip address = {};
  Token token = {};
  uint8_t more = 0;  // devices that come behind this one, if it is of no use or failed
};
std::string Encode(const Answer& answer);
// Nothing: this is not an answer of ours. The text is made plain.
std::optional<Answer> DecodeAnswer(absl::string_view bytes);

// rdma_cm may deliver more than was sent. Takes the same time for any wrong token.
bool BringsToken(absl::string_view private_data, const Token& token);
absl::StatusOr<Token> NewToken();  // random, unguessable

}  // namespace verbena::connect
