// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/sim_network.h"

#include "absl/strings/str_cat.h"
#include "fallback/io/sim_hub.h"
#include "fallback/io/sim_world.h"

namespace verbena::io {
std::string SimInjected::ToString() const {
  return absl::StrCat(partial_reads, " partial reads, ", short_writes, " short writes, ", resets,
                      " resets, ", delays, " delays, ", would_blocks, " would-blocks, ", losses,
                      " losses, ", duplicates, " duplicates");
}

SimNetwork::SimNetwork(SimOptions options) : hub_(std::make_unique<SimHub>(options)) {}
SimNetwork::~SimNetwork() = default;

std::unique_ptr<World> SimNetwork::NewWorld(absl::string_view ip) {
  const Address address = Address::FromIp(ip, 0).value();
  std::lock_guard lock(hub_->mutex);
  return std::make_unique<SimWorld>(*hub_, hub_->wire.AddNode(address));
}

bool SimNetwork::Reset(Socket socket) {
  std::lock_guard lock(hub_->mutex);
  hub_->ChangedLocked();
  return hub_->wire.Reset(socket);
}

bool SimNetwork::ResetOne() {
  std::lock_guard lock(hub_->mutex);
  hub_->ChangedLocked();
  return hub_->wire.ResetOne();
}

void SimNetwork::Partition(absl::string_view ip, absl::string_view other_ip, bool on) {
  const Address one = Address::FromIp(ip, 0).value();
  const Address other = Address::FromIp(other_ip, 0).value();
  std::lock_guard lock(hub_->mutex);
  hub_->ChangedLocked();
  hub_->wire.Partition(one, other, on);
}

Nanos SimNetwork::Now() const {
  std::lock_guard lock(hub_->mutex);
  return hub_->wire.now();
}

void SimNetwork::Advance(Nanos by) {
  std::lock_guard lock(hub_->mutex);
  hub_->ChangedLocked();
  hub_->wire.AdvanceTo(hub_->wire.now() + by);
}

SimInjected SimNetwork::injected() const {
  std::lock_guard lock(hub_->mutex);
  return hub_->wire.injected();
}

std::string SimNetwork::Describe() const {
  return absl::StrCat("seed ", hub_->options.seed, ": ", injected().ToString());
}

}  // namespace verbena::io
