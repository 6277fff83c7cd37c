// SPDX-License-Identifier: Apache-2.0
// The start-up of RFC 5044 7.1, with a plain TCP socket at one end that says what it should not, or
// nothing: rows of docs/rfc/5044.md.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "transport/context.h"

namespace verbena {
namespace {

using conformance::Check;
using conformance::StatusOf;

constexpr absl::Duration kLong = absl::Seconds(20);

// An MPA frame of revision 1, or one that is wrong in a byte that the test changes.
std::string Frame(const char* kind, const std::string& private_data = "") {
  const auto size = static_cast<uint16_t>(private_data.size());
  return std::string("MPA ID ") + kind + " Frame" + '\0' + '\1' + static_cast<char>(size >> 8) +
         static_cast<char>(size & 0xff) + private_data;
}
std::string With(std::string frame, size_t at, char value) {
  frame[at] = value;
  return frame;
}

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    const timeval limit{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  void Say(const std::string& bytes) {
    ASSERT_EQ(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  bool SaysNothing() {
    char byte;
    return recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
  }
  std::string Read(size_t size) {
    std::string bytes(size, '\0');
    const ssize_t n = recv(fd_, bytes.data(), size, MSG_WAITALL);
    return bytes.substr(0, n < 0 ? 0 : static_cast<size_t>(n));
  }
  // What comes until the other end closes; "still open" if it does not.
  std::string ReadToTheEnd() {
    std::string all;
    std::array<char, 4096> bytes;
    ssize_t n;
    while ((n = recv(fd_, bytes.data(), bytes.size(), 0)) > 0) all.append(bytes.data(), n);
    return n == 0 || errno == ECONNRESET ? all : "still open";
  }
  int fd() const { return fd_; }

 private:
  const int fd_;
};

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int Call(const Listener& listener) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in to = Loopback(listener.port());
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  return fd;
}

struct Row {
  const char* name;
  std::string bytes;
};
std::string NameOf(const testing::TestParamInfo<Row>& info) { return info.param.name; }

class BadRequest : public testing::TestWithParam<Row> {};

TEST_P(BadRequest, IsClosed) {
  // Expect: not a byte of an answer, the end of the stream, no request for the application; and a
  // count that says so.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  Socket caller(Call(listener));
  caller.Say(GetParam().bytes);
  EXPECT_EQ(caller.ReadToTheEnd(), "");
  EXPECT_EQ(StatusOf(listener.Next(absl::ZeroDuration())).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(listener.counters().refused, 1u);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadRequest,
    testing::Values(Row{"OtherKey", With(Frame("Req"), 15, 'E')}, Row{"Reply", Frame("Rep")},
                    Row{"RevisionZero", With(Frame("Req"), 17, 0)},
                    Row{"RevisionThree", With(Frame("Req"), 17, 3)},
                    Row{"PrivateDataOf513", Frame("Req", std::string(513, 'x'))},
                    Row{"EnhancedWithoutRoom", With(With(Frame("Req", "abc"), 16, 0x10), 17, 2)}),
    NameOf);

TEST(Startup, NothingIsSaidBeforeTheRequestIsWhole) {
  // One caller's request lacks a byte, a later caller's is whole and has arrived.
  // Expect: neither an answer to the first nor a request of it; with that byte there is one.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  const std::string request = Frame("Req", "first");
  Socket slow(Call(listener)), quick(Call(listener));
  slow.Say(request.substr(0, request.size() - 1));
  quick.Say(Frame("Req", "second"));
  ConnectionRequest second = Check(listener.Next(kLong));
  EXPECT_EQ(second.private_data(), "second");
  EXPECT_TRUE(slow.SaysNothing());
  EXPECT_EQ(StatusOf(listener.Next(absl::ZeroDuration())).code(),
            absl::StatusCode::kDeadlineExceeded);
  slow.Say(request.substr(request.size() - 1));
  EXPECT_EQ(Check(listener.Next(kLong)).private_data(), "first");
}

TEST(Startup, RejectIsAReplyWithR) {
  // Expect: key, R, the revision of the request, the private data; then the end of the stream.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  Socket caller(Call(listener));
  caller.Say(Frame("Req", "let me in"));
  Check(Check(listener.Next(kLong)).Reject("no"));
  EXPECT_EQ(caller.ReadToTheEnd(), With(Frame("Rep", "no"), 16, 0x20));
}

TEST(Startup, SilentCallerIsDropped) {
  // One says nothing, one half a request.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener =
      Check(context.Listen("127.0.0.1:0", {.handshake_deadline = absl::Milliseconds(50)}));
  Socket silent(Call(listener)), half(Call(listener));
  half.Say(Frame("Req").substr(0, 12));
  EXPECT_EQ(silent.ReadToTheEnd(), "");
  EXPECT_EQ(half.ReadToTheEnd(), "");
}

class BadReply : public testing::TestWithParam<Row> {};

TEST_P(BadReply, IsClosedAndReported) {
  // Expect: the caller closes, and the application is told that there is no connection.
  Socket server(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(server.fd(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(server.fd(), 1), 0);
  ASSERT_EQ(getsockname(server.fd(), reinterpret_cast<sockaddr*>(&address), &length), 0);

  Context context = Check(Context::Open({.device = "tcp"}));
  Path path = Check(context.Resolve("127.0.0.1:" + std::to_string(ntohs(address.sin_port))));
  ProtectionDomain pd = Check(path.device().AllocateProtectionDomain());
  CompletionQueue cq = Check(path.device().CreateCompletionQueue());
  QueuePair qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  Check(path.StartConnect(qp));
  Socket caller(accept(server.fd(), nullptr, nullptr));
  const std::string request = caller.Read(20);
  EXPECT_EQ(request.substr(0, 16), "MPA ID Req Frame");
  caller.Read(static_cast<unsigned char>(request[19]));
  caller.Say(GetParam().bytes);
  EXPECT_EQ(caller.ReadToTheEnd(), "");
  const Event event = Check(context.events().Next(kLong));
  EXPECT_EQ(event.type, EventType::kUnreachable);
  EXPECT_FALSE(event.status.ok());
  EXPECT_EQ(qp.state(), QpState::kInit);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadReply,
    testing::Values(Row{"OtherKey", With(Frame("Rep"), 15, 'E')}, Row{"Request", Frame("Req")},
                    Row{"RevisionZero", With(Frame("Rep"), 17, 0)},
                    Row{"RevisionThree", With(Frame("Rep"), 17, 3)},
                    Row{"PrivateDataOf513", Frame("Rep", std::string(513, 'x'))},
                    Row{"EnhancedWithoutRoom", With(With(Frame("Rep", "abc"), 16, 0x10), 17, 2)}),
    NameOf);

}  // namespace
}  // namespace verbena
