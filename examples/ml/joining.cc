// SPDX-License-Identifier: Apache-2.0
// How the ranks of a group find one another: two words of each on the board, then a connection for
// each pair.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "examples/ml/group.h"
#include "examples/ml/joining.pb.h"

namespace ml {

absl::StatusOr<std::unique_ptr<Group>> Group::Join(Board& board, const GroupOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " of ", options.size, " is none"));
  }
  const absl::Time deadline = absl::Now() + options.deadline;
  std::unique_ptr<Group> group(new Group(options));
  group->circle_.rank = options.rank;
  group->circle_.size = options.size;
  auto context = verbena::Context::Open(options.context);
  if (!context.ok()) return context.status();
  group->context_.emplace(*std::move(context));
  if (auto met = group->Introduce(board, deadline); !met.ok()) return met;
  if (auto opened = group->Open(); !opened.ok()) return opened;
  if (auto connected = group->Connect(board, deadline); !connected.ok()) {
    group->End();
    return connected;
  }
  return group;
}

absl::StatusOr<std::string> Group::Hear(Board& board, const std::string& key, absl::Time deadline) {
  return board.Wait(key, deadline - absl::Now());
}

// Which device: the one that every pair chooses.
absl::Status Group::Introduce(Board& board, absl::Time deadline) {
  device_ = context_->devices().front().get();
  if (circle_.size == 1) return absl::OkStatus();
  const auto said = board.Put(absl::StrCat("context.", circle_.rank), context_->address());
  if (!said.ok()) return said;
  for (int peer = 0; peer < circle_.size; ++peer) {
    if (peer == circle_.rank) continue;
    const auto theirs = Hear(board, absl::StrCat("context.", peer), deadline);
    if (!theirs.ok()) return theirs.status();
    const auto chosen = context_->Choose(*theirs);
    if (!chosen.ok()) return chosen.status();
    const bool first = peer == (circle_.rank == 0 ? 1 : 0);
    if (!first && *chosen != device_) {
      return absl::FailedPreconditionError(absl::StrCat(
          "a group is on one device of each rank, but rank ", peer, " is reached by ",
          (*chosen)->name(), " and others by ", device_->name(), ": set VERBENA_RDMA=off for all"));
    }
    device_ = *chosen;
  }
  return absl::OkStatus();
}

absl::Status Group::Open() {
  auto pd = device_->AllocateProtectionDomain();
  if (!pd.ok()) return pd.status();
  pd_ = *std::move(pd);
  auto channel = device_->CreateCompletionChannel();
  if (!channel.ok()) return channel.status();
  channel_ = *std::move(channel);
  const auto entries = static_cast<uint32_t>(circle_.size) * (kReceives + kSends);
  auto cq = device_->CreateCompletionQueue({.entries = entries, .channel = &channel_});
  if (!cq.ok()) return cq.status();
  cq_ = *std::move(cq);
  circle_.links.resize(static_cast<size_t>(circle_.size));
  for (int peer = 0; peer < circle_.size; ++peer) {
    if (peer == circle_.rank) continue;
    auto link = Link::Make(pd_, cq_, static_cast<uint32_t>(peer), &broken_);
    if (!link.ok()) return link.status();
    circle_.links[static_cast<size_t>(peer)] = *std::move(link);
  }
  return absl::OkStatus();
}

absl::Status Group::Connect(Board& board, absl::Time deadline) {
  if (circle_.size == 1) return absl::OkStatus();
  Doors mine;
  mine.set_slots(kSlots);
  mine.set_slot_bytes(kSlotBytes);
  for (const auto& link : circle_.links) {
    Door& door = *mine.add_doors();
    if (link == nullptr) continue;
    auto address = link->qp().address();
    if (!address.ok()) return address.status();
    door.set_address(*std::move(address));
    door.set_inbox(Encode(link->inbox()));
  }
  const auto said = board.Put(absl::StrCat("doors.", circle_.rank), mine.SerializeAsString());
  if (!said.ok()) return said;

  for (int peer = 0; peer < circle_.size; ++peer) {
    if (peer == circle_.rank) continue;
    const auto word = Hear(board, absl::StrCat("doors.", peer), deadline);
    if (!word.ok()) return word.status();
    Doors theirs;
    if (!theirs.ParseFromString(*word) || theirs.doors_size() != circle_.size ||
        theirs.slots() != kSlots || theirs.slot_bytes() != kSlotBytes) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", peer, " is of another version, or of a group of another size"));
    }
    const Door& door = theirs.doors(circle_.rank);
    auto inbox = verbena::Decode(door.inbox());
    if (!inbox.ok()) return inbox.status();
    Link& link = *circle_.links[static_cast<size_t>(peer)];
    link.SetPeersInbox(*inbox);
    const auto started = link.qp().StartConnect(
        door.address(), {.require = {.immediate = true}, .deadline = deadline - absl::Now()});
    if (!started.ok()) return started;
  }
  for (int connected = 1; connected < circle_.size;) {
    const auto event = context_->events().Next(deadline - absl::Now());
    if (!event.ok()) return event.status();
    if (event->type == verbena::EventType::kEstablished) {
      ++connected;
    } else {
      return event->status.ok() ? absl::UnavailableError("a rank ended while others joined")
                                : event->status;
    }
  }
  return absl::OkStatus();
}

}  // namespace ml
