// SPDX-License-Identifier: Apache-2.0
// One direction of a TCP stream: a ring of bytes, of the size of a window, that ends, breaks or
// stalls when it is told to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace verbena::sim {

class Wire {
 public:
  static constexpr size_t kMost = 1 << 18;

  void Open(size_t window) {
    window_ = window;
    begin_ = end_ = 0;
    closed_ = swallows_ = broken_ = stalled_ = false;
  }

  void SetWindow(size_t window) { window_ = window; }  // at most kMost

  size_t there() const { return end_ - begin_; }
  size_t room() const {
    if (swallows_) return kMost;
    return window_ > there() ? window_ - there() : 0;
  }
  bool closed() const { return closed_; }
  bool broken() const { return broken_; }
  bool stalled() const { return stalled_; }

  void Write(const void* from, size_t n) {
    if (swallows_) return;
    Around(end_, n, [&](std::byte* at, size_t done, size_t part) {
      std::memcpy(at, static_cast<const std::byte*>(from) + done, part);
    });
    end_ += n;
  }
  void Read(void* to, size_t n) {
    Around(begin_, n, [&](std::byte* at, size_t done, size_t part) {
      std::memcpy(static_cast<std::byte*>(to) + done, at, part);
    });
    begin_ += n;
  }
  void Drop() { begin_ = end_; }
  void DropAllBut(size_t n) { end_ = begin_ + std::min(n, there()); }

  void Close() { closed_ = true; }  // behind what is there
  // The sender's bytes go nowhere from here on; the receiver sees an end behind what is there.
  void Swallow() { closed_ = swallows_ = true; }
  void Break() { closed_ = broken_ = swallows_ = true; }
  void Stall(bool on) { stalled_ = on; }

 private:
  template <typename Copy>
  void Around(size_t position, size_t n, Copy copy) {
    if (n == 0) return;  // of nothing, perhaps: memcpy wants to see a place
    const size_t at = position % kMost;
    const size_t first = std::min(n, kMost - at);
    copy(bytes_.get() + at, 0, first);
    if (first < n) copy(bytes_.get(), first, n - first);
  }

  std::unique_ptr<std::byte[]> bytes_ = std::make_unique_for_overwrite<std::byte[]>(kMost);
  size_t window_ = kMost;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool closed_ = false;
  bool swallows_ = false;
  bool broken_ = false;
  bool stalled_ = false;
};

}  // namespace verbena::sim
