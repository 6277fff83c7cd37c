// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/key_source.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace verbena::engine {

namespace {
constexpr int kRounds = 6;  // Luby and Rackoff need four for a strong permutation
}

KeySource::KeySource() : aes_(EVP_CIPHER_CTX_new()) {
  unsigned char secret[16];
  if (aes_ == nullptr || RAND_bytes(secret, sizeof(secret)) != 1 ||
      EVP_EncryptInit_ex(aes_, EVP_aes_128_ecb(), nullptr, secret, nullptr) != 1) {
    // Guessable keys would be worse than no service, and there is nobody to report to yet.
    std::fputs("verbena: OpenSSL gives no random numbers; memory keys cannot be made\n", stderr);
    std::terminate();
  }
}

KeySource::~KeySource() { EVP_CIPHER_CTX_free(aes_); }

uint16_t KeySource::Round(int round, uint16_t half) {
  unsigned char in[16] = {};
  unsigned char out[32];
  in[0] = static_cast<unsigned char>(round);
  std::memcpy(in + 1, &half, sizeof(half));
  int n = 0;
  EVP_EncryptUpdate(aes_, out, &n, in, sizeof(in));
  uint16_t result;
  std::memcpy(&result, out, sizeof(result));
  return result;
}

uint32_t KeySource::Next() {
  std::lock_guard lock(mutex_);
  for (;;) {
    const uint32_t plain = counter_++;
    uint16_t left = static_cast<uint16_t>(plain >> 16);
    uint16_t right = static_cast<uint16_t>(plain);
    for (int i = 0; i < kRounds; ++i) {
      const uint16_t next = static_cast<uint16_t>(left ^ Round(i, right));
      left = right;
      right = next;
    }
    const uint32_t key = (uint32_t{left} << 16) | right;
    if (key != 0) return key;
  }
}

}  // namespace verbena::engine
