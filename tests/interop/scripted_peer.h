// SPDX-License-Identifier: Apache-2.0
// The far end of a connection as a script: a plain socket that says exactly what a test says, and
// nothing else. Every wait is bounded.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fallback/engine/test_fpdu.h"
#include "fallback/wire/mpa.h"
#include "fallback/wire/terminate.h"

namespace verbena::interop {

using engine::Bytes;
using engine::Fpdu;

// What a frame said; `private_data` is a copy.
struct Said {
  wire::MpaFrame frame;
  std::string private_data;
};

Bytes Frame(wire::MpaFrame frame, std::string_view private_data = "");

class ScriptedListener {
 public:
  explicit ScriptedListener(const std::string& host = "127.0.0.1");  // on a free port
  ~ScriptedListener();
  std::string address() const;
  int Accept();  // a socket for ScriptedPeer

 private:
  const std::string host_;
  int socket_;
};

class ScriptedPeer {
 public:
  explicit ScriptedPeer(int socket);
  explicit ScriptedPeer(const std::string& address);  // calls
  ScriptedPeer(const ScriptedPeer&) = delete;
  ~ScriptedPeer();

  void Say(std::span<const std::byte> bytes);
  void Say(const wire::MpaFrame& frame, std::string_view private_data = "") {
    Say(Frame(frame, private_data));
  }
  Said ReadFrame();
  // The next FPDU, whole. Nothing: the stream ended.
  std::optional<Fpdu> ReadFpdu();
  // The body of the Terminate that comes next, behind answers to reads at most, and is the last;
  // nothing if another thing comes.
  std::optional<Bytes> ReadTerminateBody();
  std::optional<wire::TerminateError> ReadTerminate();  // its error
  bool AtEnd();                                         // nothing more comes
  bool Silent();  // nothing has come yet, and the stream is open
  void HangUp(bool reset = false);
  void FinishSending();

 private:
  bool Fill(size_t n);
  int socket_;
  Bytes read_;
};

}  // namespace verbena::interop
