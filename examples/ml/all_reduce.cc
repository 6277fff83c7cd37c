// SPDX-License-Identifier: Apache-2.0
// A rank that adds up a tensor with all others, again and again, and compares it with the sum that
// it makes itself.
//   examples/ml/launch -n 4 -- bazel-bin/examples/ml/all_reduce [MIB [TIMES [float32|float16|…]]]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "examples/check.h"
#include "examples/ml/environment.h"

namespace {

using Clock = std::chrono::steady_clock;

// Small whole numbers, whose sums are exact in each kind of element.
float Value(int rank, size_t i) {
  return static_cast<float>((i % 11 + static_cast<size_t>(rank)) % 7);
}

void Put(ml::Dtype dtype, std::byte* at, float value) {
  if (dtype == ml::Dtype::kFloat32) {
    std::memcpy(at, &value, sizeof(value));
    return;
  }
  const uint16_t half =
      dtype == ml::Dtype::kFloat16 ? ml::HalfOfFloat(value) : ml::BfloatOfFloat(value);
  std::memcpy(at, &half, sizeof(half));
}

std::vector<std::byte> Make(ml::Dtype dtype, size_t count, auto&& value) {
  const size_t size = ml::SizeOf(dtype);
  std::vector<std::byte> bytes(count * size);
  for (size_t i = 0; i < count; ++i) Put(dtype, &bytes[i * size], value(i));
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t bytes = static_cast<size_t>((argc > 1 ? std::atof(argv[1]) : 64) * (1 << 20));
  const int times = argc > 2 ? std::atoi(argv[2]) : 10;
  const auto dtype = ml::DtypeNamed(argc > 3 ? argv[3] : "float32");
  if (!dtype.has_value() || *dtype > ml::Dtype::kBfloat16 || times < 1) {
    fprintf(stderr, "usage: all_reduce [MIB [TIMES [float32|float16|bfloat16]]]\n");
    return 2;
  }
  const size_t count = bytes / ml::SizeOf(*dtype);

  auto group = Check(ml::JoinByEnvironment());
  const auto own = Make(*dtype, count, [&](size_t i) { return Value(group->rank(), i); });
  const auto expected = Make(*dtype, count, [&](size_t i) {
    float sum = 0;
    for (int rank = 0; rank < group->size(); ++rank) sum += Value(rank, i);
    return sum;
  });
  std::vector<std::byte> sum(own.size());
  const auto in = Check(group->Register(own, false));
  const auto out = Check(group->Register(sum, true));
  Check(group->Barrier());
  printf("rank %d of %d is ready, on %s\n", group->rank(), group->size(), group->device().c_str());
  fflush(stdout);

  const auto begin = Clock::now();
  for (int i = 0; i < times; ++i) Check(group->AllReduce(*dtype, {own, &in}, {sum, &out}));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count() / times;

  if (sum != expected) {
    fprintf(stderr, "rank %d: the sum is wrong\n", group->rank());
    return 1;
  }
  if (group->rank() == 0) {
    printf("%zu %s over %d ranks: %.3f ms, %.2f GB/s of sums, all right\n", count,
           ml::NameOf(*dtype), group->size(), seconds * 1e3,
           static_cast<double>(sum.size()) / seconds / 1e9);
  }
  return 0;
}
