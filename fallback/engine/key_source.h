// SPDX-License-Identifier: Apache-2.0
// Keys that nobody can guess and that do not come back: a counter through a secret permutation of
// 32 bits (a Feistel network whose round function is AES under a random key). Every value appears
// once before any is repeated, so a key is not reused for 2^32 registrations
// (docs/decisions/0006-keys.md).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

struct evp_cipher_ctx_st;

namespace verbena::engine {

class KeySource {
 public:
  KeySource();
  ~KeySource();
  // Never 0. Any thread; does not allocate.
  uint32_t Next();

 private:
  uint16_t Round(int round, uint16_t half);

  std::mutex mutex_;
  evp_cipher_ctx_st* aes_;
  uint32_t counter_ = 0;
};

}  // namespace verbena::engine
