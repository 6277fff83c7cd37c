// SPDX-License-Identifier: Apache-2.0
// Things at the far end of a TCP connection that are not Verbena: a server that answers every
// connection with given bytes, and a client that says given bytes.
#pragma once

#include <cstdint>
#include <string>
#include <thread>

namespace verbena::testing {

// A socket on 127.0.0.1 (or ::1) with a port of its own; listening or only bound.
class BoundSocket {
 public:
  explicit BoundSocket(bool listening, bool ipv6 = false);
  ~BoundSocket();
  BoundSocket(const BoundSocket&) = delete;
  BoundSocket& operator=(const BoundSocket&) = delete;

  bool ok() const { return port_ != 0; }  // false: the machine has no such address
  int fd() const { return fd_; }
  std::string port() const { return std::to_string(port_); }

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
};

// Says given bytes to 127.0.0.1:`port`, and hears what comes back. Waits kPatience at most.
class Caller {
 public:
  explicit Caller(const std::string& port);
  ~Caller();
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  std::string address() const;  // as the other end sees it
  // As one segment, or each byte as one.
  void Say(const std::string& bytes, bool one_by_one = false);
  // The next `size` bytes, or what there is of them before the end.
  std::string Hear(size_t size);
  bool HasHeard() const;  // anything that Hear has not taken, by now
  // Until the other end closes or resets; false: it did neither.
  bool HearOut(std::string* bytes = nullptr);
  void HalfClose();
  void Reset();

 private:
  int fd_ = -1;
};

// Answers whatever a caller says with `answer`; then closes, or with `silent` waits for the caller
// to go.
class WrongServer {
 public:
  explicit WrongServer(std::string answer, bool silent = false, bool one_by_one = false);
  ~WrongServer();

  std::string port() const { return socket_.port(); }

 private:
  void Serve();

  BoundSocket socket_;
  const std::string answer_;
  const bool silent_;
  const bool one_by_one_;
  std::thread thread_;
};

// Connects to 127.0.0.1:`port`, sends `bytes`, and reads until the other end closes or resets.
// False: it did neither within kPatience.
bool SayAndBeClosed(const std::string& port, const std::string& bytes);

}  // namespace verbena::testing
