// SPDX-License-Identifier: Apache-2.0
// Sums of halves against arithmetic in double precision, which holds every sum of two exactly.
#include "examples/ml/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ml {
namespace {

// What a format of that precision and range makes of `value`: nearest, ties to even.
double Rounded(double value, int precision, int least_exponent, double largest) {
  if (!std::isfinite(value) || value == 0) return value;
  const int exponent = std::max(std::ilogb(value), least_exponent);
  const double place = std::ldexp(1.0, exponent - precision + 1);
  const double rounded = std::nearbyint(value / place) * place;
  return std::fabs(rounded) > largest ? std::copysign(HUGE_VAL, value) : rounded;
}
double RoundedToHalf(double value) { return Rounded(value, 11, -14, 65504.0); }
double RoundedToBfloat(double value) {
  return Rounded(value, 8, -126, std::ldexp(2.0 - std::ldexp(1.0, -7), 127));
}

bool Same(double a, double b) { return (std::isnan(a) && std::isnan(b)) || a == b; }

TEST(Tensor, EveryHalfComesBack) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = FloatOfHalf(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatOfHalf(HalfOfFloat(value)))) << bits;
    } else {
      ASSERT_EQ(HalfOfFloat(value), half) << bits;
      ASSERT_TRUE(std::isinf(value) || value == RoundedToHalf(value)) << bits;
    }
    const float large = FloatOfBfloat(half);
    if (!std::isnan(large)) {
      ASSERT_EQ(BfloatOfFloat(large), half) << bits;
    }
  }
  EXPECT_EQ(FloatOfHalf(0x3c00), 1.0f);
  EXPECT_EQ(FloatOfHalf(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatOfHalf(0xfbff), -65504.0f);
  EXPECT_EQ(FloatOfBfloat(0x3f80), 1.0f);
  EXPECT_TRUE(std::isnan(FloatOfBfloat(BfloatOfFloat(std::nanf("")))));
}

// Any float: also those that lie between two halves, exactly or nearly.
TEST(Tensor, FloatsAreRoundedToNearestEven) {
  std::mt19937 random(1);
  for (int i = 0; i < 2'000'000; ++i) {
    uint32_t bits = random();
    if (i % 3 == 0) bits &= 0xfffff000;  // ties of halves
    if (i % 5 == 0) bits &= 0xffff8000;  // ties of bfloats
    const auto value = std::bit_cast<float>(bits);
    ASSERT_TRUE(Same(FloatOfHalf(HalfOfFloat(value)), RoundedToHalf(value))) << bits;
    ASSERT_TRUE(Same(FloatOfBfloat(BfloatOfFloat(value)), RoundedToBfloat(value))) << bits;
  }
}

using Adder = void (*)(Dtype, const std::byte*, const std::byte*, std::byte*, size_t);

template <typename T>
std::vector<T> Sum(Adder adder, Dtype dtype, const std::vector<T>& a, const std::vector<T>& b,
                   size_t skip = 0) {
  std::vector<T> out(a.size());
  const auto at = [skip](auto& v) {
    return reinterpret_cast<std::byte*>(const_cast<T*>(&v[skip]));
  };
  if (a.size() > skip) adder(dtype, at(a), at(b), at(out), a.size() - skip);
  return out;
}

// The vectors of the processor and the portable loop agree with double precision, at every length
// and alignment of elements.
TEST(Tensor, SumsOfHalves) {
  std::mt19937 random(2);
  for (const Adder adder : {Add, AddPortably}) {
    for (size_t count : {1, 7, 8, 9, 31, 64, 100'000}) {
      std::vector<uint16_t> a(count), b(count);
      for (size_t i = 0; i < count; ++i) {
        a[i] = static_cast<uint16_t>(random());
        b[i] = static_cast<uint16_t>(random());
      }
      for (size_t skip : {0, 1, 3}) {
        if (skip >= count) continue;
        const auto halves = Sum(adder, Dtype::kFloat16, a, b, skip);
        const auto bfloats = Sum(adder, Dtype::kBfloat16, a, b, skip);
        for (size_t i = skip; i < count; ++i) {
          const double half = static_cast<double>(FloatOfHalf(a[i])) + FloatOfHalf(b[i]);
          ASSERT_TRUE(Same(FloatOfHalf(halves[i]), RoundedToHalf(half))) << i;
          // By way of float32, as stated.
          const float bfloat = FloatOfBfloat(a[i]) + FloatOfBfloat(b[i]);
          ASSERT_TRUE(Same(FloatOfBfloat(bfloats[i]), RoundedToBfloat(bfloat))) << i;
        }
      }
    }
  }
}

template <typename T>
void ExpectPlainSums(Dtype dtype) {
  std::mt19937 random(3);
  std::vector<T> a(1000), b(1000);
  for (T& each : a) each = static_cast<T>(random());
  for (T& each : b) each = static_cast<T>(random());
  for (const Adder adder : {Add, AddPortably}) {
    const auto sum = Sum(adder, dtype, a, b);
    for (size_t i = 0; i < sum.size(); ++i) {
      ASSERT_EQ(sum[i], static_cast<T>(a[i] + b[i])) << NameOf(dtype);
    }
  }
}

TEST(Tensor, SumsOfTheRest) {
  ExpectPlainSums<float>(Dtype::kFloat32);
  ExpectPlainSums<double>(Dtype::kFloat64);
  ExpectPlainSums<uint8_t>(Dtype::kUint8);
  std::vector<int32_t> most = {std::numeric_limits<int32_t>::max()}, one = {1};
  EXPECT_EQ(Sum(Add, Dtype::kInt32, most, one)[0], std::numeric_limits<int32_t>::min());
  std::vector<int64_t> a = {int64_t{1} << 40, -5}, b = {3, -6};
  EXPECT_THAT(Sum(Add, Dtype::kInt64, a, b), testing::ElementsAre((int64_t{1} << 40) + 3, -11));
}

TEST(Tensor, InPlace) {
  std::vector<uint16_t> a(1001, 0x3c00), b(1001, 0x4000);
  auto* at = reinterpret_cast<std::byte*>(a.data());
  Add(Dtype::kFloat16, at, reinterpret_cast<std::byte*>(b.data()), at, a.size());
  EXPECT_THAT(a, testing::Each(0x4200));
}

TEST(Tensor, Names) {
  for (int i = 0; i < kDtypeCount; ++i) {
    const auto dtype = static_cast<Dtype>(i);
    EXPECT_EQ(DtypeNamed(NameOf(dtype)), dtype);
  }
  EXPECT_FALSE(DtypeNamed("complex64").has_value());
  EXPECT_EQ(SizeOf(Dtype::kFloat64), 8u);
}

}  // namespace
}  // namespace ml
