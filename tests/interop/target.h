// SPDX-License-Identifier: Apache-2.0
// The end that a script plays to, and what the script needs to know of it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "tests/interop/end.h"
#include "tests/interop/scripted_peer.h"

namespace verbena::interop {

inline constexpr absl::Duration kLong = absl::Seconds(20);

// VERBENA_INTEROP_DEVICE=verbs:siw0 makes siw the end that judges, else it is Verbena over TCP.
bool SiwJudges();

enum class Role : uint8_t { kAccepts, kCalls };

// Accepts the script's connections, or calls it. Lends a region to be written and read, one to be
// written only, and one to be read only.
class Target {
 public:
  explicit Target(Role role = Role::kAccepts);

  // A new connection, of revision 2 without ready frames, on which one read may be in flight. Who
  // calls has spoken: the script, when the target accepts, has not.
  std::unique_ptr<ScriptedPeer> Connect(bool crc);
  void PostReceive(uint64_t id);  // of 16 bytes
  void PostTwoReads();            // of 8 bytes, requests 1 and 2
  std::string SendStatuses(int n);
  // Ends the connection, makes another, and hears a message on it.
  void ExpectToWorkAgain();

  EventType NextEvent();  // kDeviceFatal, and a failure: there is none
  // Whether it comes; devices tell more or less on the way.
  bool Await(EventType type);

  const Role role;
  std::vector<std::byte> spare = std::vector<std::byte>(64);
  End end;
  std::optional<Listener> listener;
  std::optional<ScriptedListener> script;
  MemoryRegion write_only, read_only;

 private:
  std::unique_ptr<ScriptedPeer> CallTarget(bool crc);
  std::unique_ptr<ScriptedPeer> LetTargetCall(bool crc);
};

}  // namespace verbena::interop
