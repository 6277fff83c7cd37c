// SPDX-License-Identifier: Apache-2.0
// What a fuzz target makes of its bytes, and how it says that a rule is broken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

namespace verbena::fuzz {

// The fuzzer keeps an input that ends here; abort, and not an exception, leaves the stack to read.
#define FUZZ_CHECK(condition, ...)                                                            \
  do {                                                                                        \
    if (!(condition)) ::verbena::fuzz::Broken(__FILE__, __LINE__, #condition, ##__VA_ARGS__); \
  } while (false)

[[noreturn]] inline void Broken(const char* file, int line, const char* condition,
                                const std::string& fact = "") {
  std::fprintf(stderr, "%s:%d: broken: %s %s\n", file, line, condition, fact.c_str());
  std::abort();
}

// Bytes from the front. Behind the end there are zeros: every prefix of an input is one.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  uint64_t Number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | Byte();
    return value;
  }
  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_ = rest_.subspan(1);
    return byte;
  }
  std::span<const std::byte> Take(size_t n) {
    const auto taken = rest_.first(std::min(n, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> Rest() { return Take(rest_.size()); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace verbena::fuzz
