// SPDX-License-Identifier: Apache-2.0
// Latency counts: as few messages one after the other as can be, each copied once.
#include <bit>
#include <cstring>

#include "examples/ml/operations.h"

namespace ml {
namespace {

// Recursive doubling. Ranks beyond the largest power of two give their part to another one first,
// and get the sum from it.
class Doubling final : public Operation {
 public:
  Doubling(const Circle& circle, uint8_t number, Dtype dtype, std::span<std::byte> out)
      : Operation(circle, number), dtype_(dtype), out_(out) {
    const int rank = circle.rank;
    const int paired = static_cast<int>(std::bit_floor(static_cast<unsigned>(circle.size)));
    if (rank >= paired) {
      steps_ = {{rank - paired, Does::kSends}, {rank - paired, Does::kTakes}};
      return;
    }
    const bool helps = rank + paired < circle.size;
    if (helps) steps_.push_back({rank + paired, Does::kAdds});
    for (int distance = 1; distance < paired; distance *= 2) {
      steps_.push_back({rank ^ distance, Does::kSends});
      steps_.push_back({rank ^ distance, Does::kAdds});
    }
    if (helps) steps_.push_back({rank + paired, Does::kSends});
  }

  absl::StatusOr<bool> Advance() override {
    for (; done_ < steps_.size(); ++done_) {
      const auto [peer, does] = steps_[done_];
      if (does == Does::kSends) {
        if (!link(peer).Send(Kind::kSlot, number_, out_)) return false;
        continue;
      }
      const auto arrival = Expect(peer, Kind::kSlot, out_.size());
      if (!arrival.ok()) return arrival.status();
      if (*arrival == nullptr) return false;
      const std::byte* slot = (*arrival)->slot.data();
      if (does == Does::kAdds) {
        Add(dtype_, out_.data(), slot, out_.data(), out_.size() / SizeOf(dtype_));
      } else {
        std::memcpy(out_.data(), slot, out_.size());
      }
      link(peer).Release();
    }
    return true;
  }
  int awaited() const override { return done_ < steps_.size() ? steps_[done_].peer : -1; }

 private:
  enum class Does : uint8_t { kSends, kAdds, kTakes };
  struct Step {
    int peer;
    Does does;
  };
  const Dtype dtype_;
  const std::span<std::byte> out_;
  std::vector<Step> steps_;
  size_t done_ = 0;
};

// Everybody tells everybody.
class Telling final : public Operation {
 public:
  Telling(const Circle& circle, uint8_t number, std::span<std::byte> out)
      : Operation(circle, number),
        out_(out),
        block_(out.size() / static_cast<size_t>(circle.size)) {}

  absl::StatusOr<bool> Advance() override {
    for (; told_ < circle_.size; ++told_) {
      if (told_ == 0) continue;
      if (!link(Peer(told_)).Send(Kind::kSlot, number_, Block(circle_.rank))) break;
    }
    for (; heard_ < circle_.size; ++heard_) {
      if (heard_ == 0) continue;
      const int peer = Peer(-heard_);
      const auto arrival = Expect(peer, Kind::kSlot, block_);
      if (!arrival.ok()) return arrival.status();
      if (*arrival == nullptr) return false;
      std::memcpy(Block(peer).data(), (*arrival)->slot.data(), block_);
      link(peer).Release();
    }
    return told_ == circle_.size;
  }
  int awaited() const override { return heard_ < circle_.size ? Peer(-heard_) : -1; }

 private:
  int Peer(int away) const { return (circle_.rank + circle_.size + away) % circle_.size; }
  std::span<std::byte> Block(int rank) const {
    return out_.subspan(static_cast<size_t>(rank) * block_, block_);
  }
  const std::span<std::byte> out_;
  const size_t block_;
  int told_ = 0;
  int heard_ = 0;
};

}  // namespace

std::unique_ptr<Operation> SmallAllReduce(const Circle& circle, uint8_t number, Dtype dtype,
                                          std::span<std::byte> out) {
  return std::make_unique<Doubling>(circle, number, dtype, out);
}

std::unique_ptr<Operation> SmallAllGather(const Circle& circle, uint8_t number,
                                          std::span<std::byte> out) {
  return std::make_unique<Telling>(circle, number, out);
}

}  // namespace ml
