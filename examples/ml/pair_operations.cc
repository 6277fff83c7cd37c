// SPDX-License-Identifier: Apache-2.0
// Two ranks, and many bytes. On kernel TCP a connection that carries much both ways at once is far
// slower than one that carries it one way at a time, so they take turns: rank 0 gives a burst of
// pieces, rank 1 adds its own to each as it comes, and gives the sums back, from its cache.
#include <algorithm>
#include <optional>

#include "examples/ml/operations.h"

namespace ml {
namespace {

constexpr int kAdder = 1;  // the rank that adds

class Pair final : public Operation {
 public:
  Pair(const Circle& circle, uint8_t number, Dtype dtype, const Place& in, const Place& out)
      : Operation(circle, number),
        dtype_(dtype),
        in_(in),
        out_(out),
        peer_(link(awaited())),
        pieces_((out.bytes.size() + kSlotBytes - 1) / kSlotBytes) {}

  absl::StatusOr<bool> Advance() override {
    auto went = circle_.rank == kAdder ? AddAndReturn() : Give();
    if (!went.ok()) return went;
    return sent_ == pieces_ && taken_ == pieces_ && peer_.Idle();
  }
  int awaited() const override { return 1 - circle_.rank; }

 private:
  struct Piece {
    size_t offset;
    size_t length;
  };
  Piece At(size_t index) const {
    const size_t offset = index * kSlotBytes;
    return {offset, std::min<size_t>(kSlotBytes, out_.bytes.size() - offset)};
  }
  // Where the burst ends that this piece is in.
  size_t EndOfBurst(size_t piece) const { return std::min((piece / kBurst + 1) * kBurst, pieces_); }

  absl::Status Give() {
    if (!met_) {
      met_ = peer_.Send(Kind::kWhere, number_, std::as_bytes(std::span(where_)));
    }
    for (; taken_ < sent_; ++taken_) {
      const auto arrival = Expect(kAdder, Kind::kPlaced, At(taken_).length);
      if (!arrival.ok()) return arrival.status();
      if (*arrival == nullptr) break;
      peer_.Release();
    }
    for (const size_t end = EndOfBurst(taken_); met_ && sent_ < end; ++sent_) {
      const auto [offset, length] = At(sent_);
      if (!peer_.SendFrom(number_, in_.slice(offset, length))) break;
    }
    return absl::OkStatus();
  }

  absl::Status AddAndReturn() {
    if (!met_) {
      auto theirs = ExpectWhere(0, out_.bytes.size());
      if (!theirs.ok() || !theirs->has_value()) return theirs.status();
      theirs_ = **theirs;
      met_ = true;
    }
    for (; taken_ < pieces_; ++taken_) {
      const auto [offset, length] = At(taken_);
      const auto arrival = Expect(0, Kind::kSlot, length);
      if (!arrival.ok()) return arrival.status();
      if (*arrival == nullptr) break;
      Add(dtype_, in_.bytes.data() + offset, (*arrival)->slot.data(), out_.bytes.data() + offset,
          length / SizeOf(dtype_));
      peer_.Release();
    }
    for (; sent_ < taken_ && EndOfBurst(sent_) <= taken_; ++sent_) {
      const auto [offset, length] = At(sent_);
      if (!peer_.PlaceFrom(number_, out_.slice(offset, length), theirs_.at(offset))) break;
    }
    return absl::OkStatus();
  }

  const Dtype dtype_;
  const Place in_;
  const Place out_;
  Link& peer_;
  const size_t pieces_;
  const std::string where_ = verbena::Encode(out_.remote());
  bool met_ = false;  // rank 1 knows where rank 0's sums go
  verbena::RemoteBuffer theirs_;
  size_t sent_ = 0;
  size_t taken_ = 0;
};

}  // namespace

std::unique_ptr<Operation> PairAllReduce(const Circle& circle, uint8_t number, Dtype dtype,
                                         const Place& in, const Place& out) {
  return std::make_unique<Pair>(circle, number, dtype, in, out);
}

}  // namespace ml
