// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/token.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdio>
#include <cstring>
#include <exception>

namespace verbena::engine {
namespace {

template <typename Tag>
Tag Hmac(const Nonce& key, absl::string_view message) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest,
           &size) == nullptr) {
    // As with keys: a guessable tag would be worse than no service.
    std::fputs("verbena: OpenSSL has no HMAC-SHA256; peers cannot be told from strangers\n",
               stderr);
    std::terminate();
  }
  Tag tag;
  std::memcpy(tag.data(), digest, tag.size());
  return tag;
}

template <typename Bytes>
absl::string_view View(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

// The messages differ in their first byte, so that no tag is one of another kind.
Place PlaceOf(const Nonce& called) { return Hmac<Place>(called, "p"); }

Token CallOf(const Nonce& called, const Nonce& caller) {
  return Hmac<Token>(called, "c" + std::string(View(caller)));
}

Token AnswerTo(const Nonce& called, const Token& call) {
  return Hmac<Token>(called, "a" + std::string(View(call)));
}

std::string Text(const Token& token) { return std::string(View(token)); }

std::string EncodeCall(const Call& call) {
  return std::string(View(call.place)) + std::string(View(call.call));
}

std::optional<Call> DecodeCall(absl::string_view private_data) {
  Call call;
  if (private_data.size() != call.place.size() + call.call.size()) return std::nullopt;
  std::memcpy(call.place.data(), private_data.data(), call.place.size());
  std::memcpy(call.call.data(), private_data.data() + call.place.size(), call.call.size());
  return call;
}

}  // namespace verbena::engine
