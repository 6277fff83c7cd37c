// SPDX-License-Identifier: Apache-2.0
#include "fallback/lingerer.h"

#include <cerrno>

namespace verbena::fallback {

namespace {
constexpr Nanos kLingerTime = 1'000'000'000;
constexpr int kReadsPerTurn = 16;
}  // namespace

Lingerer::Lingerer(Hub* hub, io::Socket socket, std::vector<std::byte> rest)
    : hub_(hub), socket_(socket), rest_(std::move(rest)) {}

Lingerer::~Lingerer() {
  if (socket_ < 0) return;
  hub_->poller().Unwatch(socket_);
  hub_->streams().Close(socket_, true);
}

void Lingerer::Begin() {
  begun_ = true;
  const bool blocked = SendRest() && !half_closed_;
  hub_->SetDeadline(this, hub_->Now() + kLingerTime);
  hub_->Watch(this, socket_, true, blocked);
}

bool Lingerer::SendRest() {
  while (sent_ < rest_.size()) {
    const iovec v{rest_.data() + sent_, rest_.size() - sent_};
    const ssize_t n = hub_->streams().Send(socket_, {&v, 1});
    if (n == -EAGAIN) return true;
    if (n < 0) return false;
    sent_ += static_cast<size_t>(n);
  }
  if (!half_closed_) hub_->streams().FinishSending(socket_);
  half_closed_ = true;
  return true;
}

void Lingerer::OnReady(bool readable, bool writable) {
  if (socket_ < 0) return;
  if (writable && !half_closed_) {
    if (!SendRest()) return Finish(true);
    if (half_closed_) hub_->ChangeWatch(this, socket_, true, false);
  }
  for (int i = 0; readable && i < kReadsPerTurn; ++i) {
    std::byte scrap[16384];
    const iovec v{scrap, sizeof(scrap)};
    const ssize_t n = hub_->streams().Receive(socket_, {&v, 1});
    if (n == -EAGAIN) return;
    if (n <= 0) return Finish(n < 0 || !half_closed_);
  }
}

void Lingerer::OnDeadline() {
  if (!begun_) return Begin();
  if (socket_ >= 0) Finish(true);
}

void Lingerer::Finish(bool reset) {
  hub_->poller().Unwatch(socket_);
  hub_->streams().Close(socket_, reset);
  socket_ = -1;
  hub_->Remove(this);
  hub_->Lingered(this);
}

}  // namespace verbena::fallback
