// SPDX-License-Identifier: Apache-2.0
// Registered memory that frames are written into and messages are sent from. Frames that follow
// each other closely become one message, so that a call at depth costs a fraction of a send.
// One thread at a time: Session's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>

namespace verbena::rpc {

class SendRing {
 public:
  struct Message {
    uint64_t start = 0;  // counted on for ever; the place is start % size
    uint32_t length = 0;
    uint64_t end() const { return start + length; }
  };

  // `memory` is borrowed; no message is longer than `most`.
  SendRing(std::span<std::byte> memory, uint32_t most) : memory_(memory), most_(most) {}

  // Room for a frame of at most `most` bytes; empty if there is none before some are Released.
  std::span<std::byte> Reserve(uint32_t bytes);

  // Not taken yet, the oldest first.
  const std::deque<Message>& unsent() const { return unsent_; }
  uint64_t unsent_bytes() const { return unsent_.empty() ? 0 : head_ - unsent_.front().start; }
  std::span<std::byte> BytesOf(const Message& message) const {
    return memory_.subspan(message.start % memory_.size(), message.length);
  }
  // The oldest is being sent: nothing more goes into it.
  Message Take();
  // All messages up to this one were sent.
  void Release(const Message& message) { tail_ = message.end(); }

 private:
  std::span<std::byte> memory_;
  uint32_t most_;
  uint64_t head_ = 0;
  uint64_t tail_ = 0;
  std::deque<Message> unsent_;
};

}  // namespace verbena::rpc
