// SPDX-License-Identifier: Apache-2.0
// Kinds of elements, and their sums. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ml {

enum class Dtype : uint8_t {
  kFloat32,
  kFloat16,   // IEEE 754 binary16
  kBfloat16,  // the upper half of a float32
  kFloat64,
  kInt32,
  kInt64,
  kUint8,
};
inline constexpr int kDtypeCount = 7;

size_t SizeOf(Dtype dtype);       // bytes of an element
const char* NameOf(Dtype dtype);  // "float32", as NumPy and PyTorch call it
std::optional<Dtype> DtypeNamed(std::string_view name);

// out[i] = a[i] + b[i]. `out` may be `a` or `b`, else they do not overlap. Elements are aligned.
// Halves are added as float32 and rounded once, to nearest, ties to even. Integers wrap around.
void Add(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out, size_t count);

// The same without the processor's own instructions for halves: what Add is on processors that lack
// them.
void AddPortably(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out, size_t count);

float FloatOfHalf(uint16_t half);
uint16_t HalfOfFloat(float value);
float FloatOfBfloat(uint16_t bfloat);
uint16_t BfloatOfFloat(float value);

}  // namespace ml
