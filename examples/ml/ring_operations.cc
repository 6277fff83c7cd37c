// SPDX-License-Identifier: Apache-2.0
// Bandwidth counts: every rank sends and takes 2 (size - 1) / size of the tensor, to one neighbour
// and from the other.
//
// The tensor is cut into one segment a rank, a long segment into pieces. In step s of
// 2 (size - 1) a rank sends segment rank - s and takes segment rank - s - 1. In the first half of
// the steps what comes is added to the rank's own and goes on; after it the rank has the sum of
// segment rank + 1, and in the second half sums go around and are only passed on. An all-gather is
// the second half alone. So piece i of all that a rank sends may leave when it has taken piece
// i - (pieces of a segment), which is all that is to be known of steps.
//
// Nothing is overwritten too early, also in place: a sum reaches a rank only after it has gone
// through the rank's own part, so that had been sent and had arrived.
#include <algorithm>
#include <cstring>
#include <optional>

#include "examples/ml/operations.h"

namespace ml {
namespace {

class Ring final : public Operation {
 public:
  // `bytes` of a segment; the last ones may be shorter or empty.
  Ring(const Circle& circle, uint8_t number, std::optional<Dtype> sums, const Place& in,
       const Place& out, size_t segment)
      : Operation(circle, number),
        sums_(sums),
        in_(in),
        out_(out),
        segment_(segment),
        piece_(segment <= kSlotBytes ? segment : kPieceBytes),
        pieces_((segment + piece_ - 1) / piece_),
        added_(sums.has_value() ? pieces_ * static_cast<size_t>(circle.size - 1) : 0),
        all_(added_ + pieces_ * static_cast<size_t>(circle.size - 1)) {}

  absl::StatusOr<bool> Advance() override {
    if (auto met = Meet(); !met.ok()) return met;
    for (;;) {
      const size_t before = sent_ + taken_;
      if (auto status = TakeSome(); !status.ok()) return status;
      SendSome();
      if (sent_ + taken_ == before) break;
    }
    return taken_ == all_ && sent_ == all_ && circle_.right().Idle();
  }
  int awaited() const override {
    if (!theirs_.has_value()) return (circle_.rank + 1) % circle_.size;
    return taken_ < all_ ? left() : -1;
  }

 private:
  struct Piece {
    size_t offset;
    size_t length;
  };
  int left() const { return (circle_.rank + circle_.size - 1) % circle_.size; }

  Piece At(size_t index, int ahead) const {
    const int step = static_cast<int>(index / pieces_);
    const int size = circle_.size;
    const int which = ((circle_.rank - step - ahead) % size + size) % size;
    const size_t begin = static_cast<size_t>(which) * segment_;
    const size_t end = std::min(begin + segment_, out_.bytes.size());
    const size_t from = begin + index % pieces_ * piece_;
    if (from >= end) return {0, 0};
    return {from, std::min(piece_, end - from)};
  }

  // Tells the left where the sums shall go, and hears it from the right.
  absl::Status Meet() {
    if (!told_) {
      const std::string mine = verbena::Encode(out_.remote());
      told_ = circle_.left().Send(Kind::kWhere, number_, std::as_bytes(std::span(mine)));
    }
    if (theirs_.has_value()) return absl::OkStatus();
    auto theirs = ExpectWhere((circle_.rank + 1) % circle_.size, out_.bytes.size());
    if (theirs.ok()) theirs_ = *theirs;
    return theirs.status();
  }

  absl::Status TakeSome() {
    // With two ranks left is right, and its first message is of another kind.
    if (circle_.size == 2 && !theirs_.has_value()) return absl::OkStatus();
    for (; taken_ < all_; ++taken_) {
      const Piece piece = At(taken_, 1);
      const bool adds = taken_ < added_;
      const auto arrival = Expect(left(), adds ? Kind::kSlot : Kind::kPlaced, piece.length);
      if (!arrival.ok() || *arrival == nullptr) return arrival.status();
      if (adds) {
        Add(*sums_, in_.bytes.data() + piece.offset, (*arrival)->slot.data(),
            out_.bytes.data() + piece.offset, piece.length / SizeOf(*sums_));
      }
      circle_.left().Release();
    }
    return absl::OkStatus();
  }

  void SendSome() {
    for (; sent_ < all_ && (sent_ < pieces_ || taken_ > sent_ - pieces_); ++sent_) {
      const Piece piece = At(sent_, 0);
      const Place& from = sent_ < pieces_ ? in_ : out_;
      const auto entry = from.slice(piece.offset, piece.length);
      const bool adds = sent_ < added_;
      if (!adds && !theirs_.has_value()) return;
      const bool posted =
          adds ? circle_.right().SendFrom(number_, entry)
               : circle_.right().PlaceFrom(number_, entry, theirs_->at(piece.offset));
      if (!posted) return;
    }
  }

  const std::optional<Dtype> sums_;  // none: an all-gather
  const Place in_;
  const Place out_;
  const size_t segment_;
  const size_t piece_;   // bytes
  const size_t pieces_;  // of a segment
  const size_t added_;   // of the pieces, those that are parts of sums
  const size_t all_;
  bool told_ = false;
  std::optional<verbena::RemoteBuffer> theirs_;  // of the right
  size_t sent_ = 0;
  size_t taken_ = 0;
};

}  // namespace

std::unique_ptr<Operation> RingAllReduce(const Circle& circle, uint8_t number, Dtype dtype,
                                         const Place& in, const Place& out) {
  const size_t count = out.bytes.size() / SizeOf(dtype);
  const auto size = static_cast<size_t>(circle.size);
  return std::make_unique<Ring>(circle, number, dtype, in, out,
                                (count + size - 1) / size * SizeOf(dtype));
}

std::unique_ptr<Operation> RingAllGather(const Circle& circle, uint8_t number, const Place& out) {
  return std::make_unique<Ring>(circle, number, std::nullopt, out, out,
                                out.bytes.size() / static_cast<size_t>(circle.size));
}

}  // namespace ml
