// SPDX-License-Identifier: Apache-2.0
// How the ends of an out-of-band connection know each other: HMAC-SHA256 under the nonces of their
// addresses, cut to what stands on the wire (docs/wire.md, Out of band). Pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "transport/out_of_band.h"

namespace verbena::engine {

// Names a queue pair to a listener, for holders of its address only.
using Place = std::array<uint8_t, 8>;
using Token = std::array<uint8_t, 16>;

Place PlaceOf(const Nonce& called);
// What the caller shows: it holds the address of the called one, and this one of its own.
Token CallOf(const Nonce& called, const Nonce& caller);
// What the called one shows: it holds that address too, and answers this very call.
Token AnswerTo(const Nonce& called, const Token& call);

std::string Text(const Token& token);  // its bytes

struct Call {
  Place place = {};
  Token call = {};
};
// The private data of a Request; nothing if it is none.
std::string EncodeCall(const Call& call);
std::optional<Call> DecodeCall(absl::string_view private_data);

}  // namespace verbena::engine
