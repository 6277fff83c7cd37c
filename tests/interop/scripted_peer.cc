// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/scripted_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "fallback/wire/ddp.h"
#include "gtest/gtest.h"

namespace verbena::interop {

namespace {

constexpr int kPatienceMs = 10'000;

bool Await(int socket) {
  pollfd p{socket, POLLIN, 0};
  return poll(&p, 1, kPatienceMs) > 0;
}

sockaddr_in At(const std::string& host, int port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(inet_pton(AF_INET, host.c_str(), &at.sin_addr), 1) << host;
  return at;
}

// rdma_cm chooses siw's port among all, and siw binds it as one that may be reused (Linux 6.1,
// siw_cm.c kernel_bindconnect). Without this it meets connections of ours that TCP still remembers.
int MakeSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  return fd;
}

int Call(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(colon + 1), &port)) << address;
  const sockaddr_in to = At(address.substr(0, colon), port);
  const int fd = MakeSocket();
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0) << address;
  return fd;
}

}  // namespace

Bytes Frame(wire::MpaFrame frame, std::string_view private_data) {
  frame.private_data = std::as_bytes(std::span(private_data));
  Bytes out(wire::kMpaMaxFrame);
  out.resize(wire::EncodeMpa(frame, out));
  return out;
}

ScriptedListener::ScriptedListener(const std::string& host) : host_(host), socket_(MakeSocket()) {
  const sockaddr_in at = At(host_, 0);
  EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
  EXPECT_EQ(listen(socket_, 8), 0);
}

ScriptedListener::~ScriptedListener() { close(socket_); }

std::string ScriptedListener::address() const {
  sockaddr_in at{};
  socklen_t size = sizeof(at);
  getsockname(socket_, reinterpret_cast<sockaddr*>(&at), &size);
  return absl::StrCat(host_, ":", ntohs(at.sin_port));
}

int ScriptedListener::Accept() {
  if (!Await(socket_)) {
    ADD_FAILURE() << "nobody calls";
    return -1;
  }
  return accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
}

ScriptedPeer::ScriptedPeer(int socket) : socket_(socket) {
  const int one = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}
ScriptedPeer::ScriptedPeer(const std::string& address) : ScriptedPeer(Call(address)) {}
ScriptedPeer::~ScriptedPeer() { HangUp(); }

void ScriptedPeer::HangUp(bool reset) {
  if (socket_ < 0) return;
  const linger at_once{1, 0};
  if (reset) setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(std::exchange(socket_, -1));
}

void ScriptedPeer::FinishSending() { shutdown(socket_, SHUT_WR); }

void ScriptedPeer::Say(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ASSERT_GT(n, 0) << "the other end is gone";
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

// At least `n` bytes are there.
bool ScriptedPeer::Fill(size_t n) {
  while (read_.size() < n) {
    if (!Await(socket_)) {
      ADD_FAILURE() << "the other end is silent";
      return false;
    }
    std::byte buffer[65536];
    const ssize_t got = recv(socket_, buffer, sizeof(buffer), 0);
    if (got <= 0) return false;
    read_.insert(read_.end(), buffer, buffer + got);
  }
  return true;
}

Said ScriptedPeer::ReadFrame() {
  Said said;
  size_t size = sizeof(wire::MpaHeader);
  while (read_.size() < size) {
    if (!Fill(size)) {
      ADD_FAILURE() << "no MPA frame";
      return said;
    }
    const auto whole = wire::MpaFrameSize(read_);
    EXPECT_TRUE(whole.ok()) << whole.status();
    if (!whole.ok()) return said;
    size = *whole;
  }
  EXPECT_EQ(read_.size(), size) << "something follows before it was answered (RFC 5044 7.1.2)";
  const Bytes frame = std::exchange(read_, {});
  const auto decoded = wire::DecodeMpa(frame);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  if (!decoded.ok()) return said;
  said.frame = *decoded;
  said.private_data.assign(reinterpret_cast<const char*>(decoded->private_data.data()),
                           decoded->private_data.size());
  said.frame.private_data = {};
  return said;
}

std::optional<Fpdu> ScriptedPeer::ReadFpdu() {
  if (!Fill(sizeof(wire::Be16))) return std::nullopt;
  const size_t size = wire::FpduSizeOfUlpdu(wire::Load<wire::Be16>(read_.data()));
  if (!Fill(size)) return std::nullopt;
  const std::vector<Fpdu> whole = engine::ParseFpdus(std::span(read_).first(size));
  read_.erase(read_.begin(), read_.begin() + static_cast<ptrdiff_t>(size));
  if (whole.size() != 1) return std::nullopt;
  return whole.front();
}

std::optional<Bytes> ScriptedPeer::ReadTerminateBody() {
  auto fpdu = ReadFpdu();
  while (fpdu.has_value() && fpdu->opcode() == wire::Opcode::kReadResponse) fpdu = ReadFpdu();
  if (!fpdu.has_value() || fpdu->opcode() != wire::Opcode::kTerminate) return std::nullopt;
  if (!AtEnd()) return std::nullopt;
  return fpdu->payload;
}

std::optional<wire::TerminateError> ScriptedPeer::ReadTerminate() {
  const auto body = ReadTerminateBody();
  if (!body.has_value()) return std::nullopt;
  const auto terminate = wire::DecodeTerminate(*body);
  EXPECT_TRUE(terminate.ok()) << terminate.status();
  return terminate.ok() ? std::optional(terminate->error) : std::nullopt;
}

bool ScriptedPeer::AtEnd() { return read_.empty() && !Fill(1); }

bool ScriptedPeer::Silent() {
  std::byte byte;
  return read_.empty() && recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

}  // namespace verbena::interop
