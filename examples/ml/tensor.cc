// SPDX-License-Identifier: Apache-2.0
// Loops that the compiler makes vectors of, for each set of instructions that there may be.
#include "examples/ml/tensor.h"

#include <bit>
#include <type_traits>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define ML_AVX2 __attribute__((target("avx2,f16c")))
#endif
#define ML_INLINE inline __attribute__((always_inline))
// The next loop's iterations do not depend on one another.
#if defined(__clang__)
#define ML_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define ML_APART _Pragma("GCC ivdep")
#endif

namespace ml {
namespace {

struct Kind {
  Dtype dtype;
  const char* name;
  size_t size;
};
constexpr Kind kKinds[kDtypeCount] = {
    {Dtype::kFloat32, "float32", 4},   {Dtype::kFloat16, "float16", 2},
    {Dtype::kBfloat16, "bfloat16", 2}, {Dtype::kFloat64, "float64", 8},
    {Dtype::kInt32, "int32", 4},       {Dtype::kInt64, "int64", 8},
    {Dtype::kUint8, "uint8", 1},
};

constexpr uint32_t kInfinity = 0x7f800000;        // of a float32
constexpr uint32_t kSmallestNormal = 0x38800000;  // of a half, 2^-14
constexpr uint32_t kTooLarge = 0x477ff000;        // 65520: halfway to what would be the next half

// Multiplied by 2^112 the exponent of a half, in a float's place, is biased as a float's. Right for
// subnormal halves too, which are subnormal floats for a moment.
ML_INLINE float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  bits |= (half & 0x7c00u) == 0x7c00u ? kInfinity : 0u;
  return std::bit_cast<float>(bits | (half & 0x8000u) << 16);
}

// What is less than the smallest normal half gets 0.5 added, whose last place is that of subnormal
// halves: the addition rounds.
ML_INLINE uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  const uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x1ffu);
  uint32_t half = magnitude < kSmallestNormal ? subnormal : normal;
  half = magnitude >= kTooLarge ? 0x7c00u : half;
  half = magnitude > kInfinity ? nan : half;
  return static_cast<uint16_t>(half | (bits >> 16 & 0x8000u));
}

ML_INLINE float BfloatToFloat(uint16_t bfloat) {
  return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16);
}

ML_INLINE uint16_t FloatToBfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40u;  // quiet: rounding could make it an infinity
  return static_cast<uint16_t>((bits & 0x7fffffffu) > kInfinity ? nan : rounded);
}

template <typename T>
ML_INLINE void AddAll(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  using Sum = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                          std::type_identity<T>>::type;
  const auto* x = reinterpret_cast<const Sum*>(a);
  const auto* y = reinterpret_cast<const Sum*>(b);
  auto* sum = reinterpret_cast<Sum*>(out);
  ML_APART
  for (size_t i = 0; i < count; ++i) sum[i] = static_cast<Sum>(x[i] + y[i]);
}

template <auto kToFloat, auto kFromFloat>
ML_INLINE void AddHalves(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  const auto* x = reinterpret_cast<const uint16_t*>(a);
  const auto* y = reinterpret_cast<const uint16_t*>(b);
  auto* sum = reinterpret_cast<uint16_t*>(out);
  ML_APART
  for (size_t i = 0; i < count; ++i) sum[i] = kFromFloat(kToFloat(x[i]) + kToFloat(y[i]));
}

ML_INLINE void AddAny(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out,
                      size_t count) {
  switch (dtype) {
    case Dtype::kFloat32:
      return AddAll<float>(a, b, out, count);
    case Dtype::kFloat16:
      return AddHalves<HalfToFloat, FloatToHalf>(a, b, out, count);
    case Dtype::kBfloat16:
      return AddHalves<BfloatToFloat, FloatToBfloat>(a, b, out, count);
    case Dtype::kFloat64:
      return AddAll<double>(a, b, out, count);
    case Dtype::kInt32:
      return AddAll<int32_t>(a, b, out, count);
    case Dtype::kInt64:
      return AddAll<int64_t>(a, b, out, count);
    case Dtype::kUint8:
      return AddAll<uint8_t>(a, b, out, count);
  }
}

#if defined(__x86_64__)
ML_AVX2 ML_INLINE __m256 LoadHalves(const std::byte* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// The compiler does not see VCVTPH2PS and VCVTPS2PH in the loop above.
ML_AVX2 void AddHalvesF16c(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  constexpr size_t kLanes = 8;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 sum = _mm256_add_ps(LoadHalves(a + 2 * i), LoadHalves(b + 2 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(sum, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  AddHalves<HalfToFloat, FloatToHalf>(a + 2 * i, b + 2 * i, out + 2 * i, count - i);
}

ML_AVX2 void AddAvx2(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out,
                     size_t count) {
  if (dtype == Dtype::kFloat16) return AddHalvesF16c(a, b, out, count);
  AddAny(dtype, a, b, out, count);
}

// clang 14 has no name for it.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

size_t SizeOf(Dtype dtype) { return kKinds[static_cast<int>(dtype)].size; }
const char* NameOf(Dtype dtype) { return kKinds[static_cast<int>(dtype)].name; }

std::optional<Dtype> DtypeNamed(std::string_view name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind.dtype;
  }
  return std::nullopt;
}

void Add(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
#if defined(__x86_64__)
  static const bool has_vectors = __builtin_cpu_supports("avx2") && HasF16c();
  if (has_vectors) return AddAvx2(dtype, a, b, out, count);
#endif
  AddPortably(dtype, a, b, out, count);
}

void AddPortably(Dtype dtype, const std::byte* a, const std::byte* b, std::byte* out,
                 size_t count) {
  AddAny(dtype, a, b, out, count);
}

float FloatOfHalf(uint16_t half) { return HalfToFloat(half); }
uint16_t HalfOfFloat(float value) { return FloatToHalf(value); }
float FloatOfBfloat(uint16_t bfloat) { return BfloatToFloat(bfloat); }
uint16_t BfloatOfFloat(float value) { return FloatToBfloat(value); }

}  // namespace ml
