// SPDX-License-Identifier: Apache-2.0
// Callers whose Request breaks a rule, or keeps an odd one. Each in one piece and byte by byte.
// Expect: the answer of the row and its reason in the log (or of Accept), no descriptor left over,
// and the next caller is served.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "fallback/wire/extension.h"
#include "fallback/wire/mpa.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/tcp_peer.h"
#include "tests/conformance/check.h"
#include "tests/hostile/end.h"

namespace verbena::hostile {
namespace {

using conformance::Check;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The log reads it once; rejections are no more than information.
const int kLogAll = setenv("VERBENA_LOG", "info", 1);

enum class Answer { kClosed, kRejected, kNotAccepted, kReply };
struct Row {
  const char* name;
  std::string bytes;
  Answer answer;
  std::string reason = "";  // in the log, or of Accept; in the Reject, too, if there is one
};

std::string Data(size_t size) { return std::string(size, 'd'); }
std::string Enhanced(const char* words, uint8_t more_flags = 0) {
  return Frame({.flags = static_cast<uint8_t>(0x10 | more_flags),
                .revision = 2,
                .data = std::string(words, 4)});
}
std::string WithRecord(uint32_t features, uint32_t required) {
  return Frame({.flags = 0x10,
                .revision = 2,
                .data = std::string("\x80\x01\xc0\x01", 4) + Record(1, features, required)});
}
constexpr uint32_t kUsual = 0x1f;
std::string AsQuestion(const std::string& request) {
  return std::string(wire::kMpaAskKey) + request.substr(wire::kMpaAskKey.size());
}

const std::vector<Row>& Rows() {
  static const auto* const rows = new std::vector<Row>{
      // What is no Request.
      {"Nothing", "", Answer::kClosed, "it left before its request was whole"},
      {"Http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Answer::kClosed, "HTTP request"},
      {"Tls", "\x16\x03\x01\x02" + Data(100), Answer::kClosed, "TLS handshake"},
      {"Ssh", "SSH-2.0-OpenSSH_9\r\n", Answer::kClosed, "SSH banner"},
      {"Zeros", std::string(64, '\0'), Answer::kClosed, "neither key"},
      {"KeyInLowerCase", Frame({.key = "mpa id req frame"}), Answer::kClosed, "neither key"},
      {"KeyOfAReply", Frame({.key = "MPA ID Rep Frame"}), Answer::kClosed,
       "an MPA Reply where a Request was due"},
      {"KeyWrongInTheLastByte", Frame({.key = "MPA ID Req FramE"}), Answer::kClosed, "neither key"},
      // Fields out of range.
      {"Revision0", Frame({.revision = 0}), Answer::kClosed, "revision 0"},
      {"Revision3", Frame({.revision = 3}), Answer::kClosed, "revision 3"},
      {"Revision255", Frame({.revision = 255}), Answer::kClosed, "revision 255"},
      {"PrivateData513", Frame({.data = Data(513)}), Answer::kClosed, "PD_Length 513, exceed"},
      {"PrivateData65535", Frame({.length = 65535}), Answer::kClosed, "PD_Length 65535, exceed"},
      {"EnhancedWithoutItsWords", Frame({.flags = 0x10, .revision = 2, .data = Data(3)}),
       Answer::kClosed, "no room for the 4 bytes of IRD and ORD"},
      {"Markers", Frame({.flags = 0x80}), Answer::kRejected, "MPA markers, which are not"},
      {"MarkersEnhanced", Enhanced("\x80\x01\xc0\x01", 0x80), Answer::kRejected,
       "MPA markers, which are not"},
      // Too early.
      {"DataBehindIt", OwnRequest() + Text(engine::MakeFpdu(engine::WriteHeader(0, 0))),
       Answer::kNotAccepted, "sent data before the answer"},
      {"SecondRequestBehindIt", OwnRequest() + OwnRequest(), Answer::kNotAccepted,
       "sent data before the answer"},
      // Records.
      {"RequiresWhatIsUnknown", WithRecord(kUsual | 1u << 20, 1u << 20), Answer::kRejected,
       "feature bit 20 (unknown) is required by the peer"},
      {"AsksForARendezvous", AsQuestion(WithRecord(kUsual | wire::kRendezvous, wire::kRendezvous)),
       Answer::kRejected, "the listener does not understand the request"},
      {"RendezvousByFeatureAlone", WithRecord(kUsual | wire::kRendezvous, wire::kRendezvous),
       Answer::kRejected, "a rendezvous is what both the key"},
      {"RendezvousByKeyAlone", AsQuestion(OwnRequest()), Answer::kRejected,
       "a rendezvous is what both the key"},
      {"CallsOutOfBand", WithRecord(kUsual | wire::kOutOfBand, wire::kOutOfBand), Answer::kRejected,
       "takes no out-of-band connections"},
      // Odd and legal.
      {"PrivateData0", Frame({}), Answer::kReply},
      {"PrivateData256", Frame({.data = Data(256)}), Answer::kReply},
      {"PrivateData512", Frame({.data = Data(512)}), Answer::kReply},
      {"EnhancedPrivateData512",
       Enhanced("\x80\x01\xc0\x01").substr(0, 18) + std::string("\x02\x00\x80\x01\xc0\x01", 6) +
           Data(508),
       Answer::kReply},
      {"Revision2Plain", Frame({.revision = 2}), Answer::kReply},
      {"Revision1WithTheBitOfS", Frame({.flags = 0x10}), Answer::kReply},
      {"ReservedFlags", Frame({.flags = 0x0f}), Answer::kReply},
      {"RejectInARequest", Frame({.flags = 0x20}), Answer::kReply},
      {"CrcWanted", Frame({.flags = 0x40}), Answer::kReply},
      {"NoDepthAtAll", Enhanced("\x80\x00\xc0\x00"), Answer::kReply},
      {"DepthsUnspecified", Enhanced("\xbf\xff\xff\xff"), Answer::kReply},
      {"OffersTheEmptySendAlone", Enhanced("\xc0\x01\x00\x01"), Answer::kReply},
      {"OffersNoReadyFrame", Enhanced("\x80\x01\x00\x01"), Answer::kReply},
      {"RecordOfAReply",
       Frame({.flags = 0x10,
              .revision = 2,
              .data = std::string("\x80\x01\xc0\x01", 4) + Record(2, kUsual, kUsual)}),
       Answer::kReply},
      {"RecordBeforeZeros",
       Frame({.flags = 0x10,
              .revision = 2,
              .data = std::string("\x80\x01\xc0\x01", 4) + Record(1, kUsual, 0) +
                      std::string(200, '\0')}),
       Answer::kReply},
      {"NoteOfNonsense", WithRecord(kUsual | wire::kNote, wire::kNote), Answer::kReply},
  };
  return *rows;
}

class Requests : public ::testing::TestWithParam<std::tuple<size_t, bool>> {};

TEST_P(Requests, AreAnsweredAsTheyDeserve) {
  const Row& row = Rows()[std::get<0>(GetParam())];
  const bool one_by_one = std::get<1>(GetParam());
  const int descriptors = CountDescriptors();
  {
    Site site;
    ::testing::internal::CaptureStderr();
    testing::Caller caller(site.port());
    caller.Say(row.bytes, one_by_one);
    const bool arrives = row.answer == Answer::kReply || row.answer == Answer::kNotAccepted ||
                         row.reason.find("is required by") != std::string::npos;
    if (row.bytes.empty()) caller.HalfClose();
    std::string log;
    {
      Site::Served served;
      if (arrives) served = site.Serve();
      if (row.answer == Answer::kReply) {
        EXPECT_TRUE(served.accepted.ok()) << served.accepted;
        const std::string reply = caller.Hear(20);
        EXPECT_THAT(reply, StartsWith("MPA ID Rep Frame"));
        EXPECT_EQ(reply[16] & 0x20, 0) << "rejected";
        EXPECT_EQ(reply[17], row.bytes[17]) << "another revision";
      } else {
        std::string heard;
        EXPECT_TRUE(caller.HearOut(&heard));
        if (row.answer == Answer::kRejected) {
          EXPECT_THAT(heard, StartsWith("MPA ID Rep Frame"));
          EXPECT_NE(heard[16] & 0x20, 0);
          EXPECT_THAT(heard, HasSubstr(row.reason.substr(0, 100)));
        } else {
          EXPECT_EQ(heard, "");
        }
      }
      log = ::testing::internal::GetCapturedStderr() + std::string(served.accepted.message());
    }
    EXPECT_THAT(log, HasSubstr(row.reason));
    EXPECT_TRUE(site.ServesTheNext());
  }
  EXPECT_EQ(CountDescriptors(), descriptors);
}

INSTANTIATE_TEST_SUITE_P(Table, Requests,
                         ::testing::Combine(::testing::Range<size_t>(0, Rows().size()),
                                            ::testing::Bool()),
                         [](const auto& i) {
                           return std::string(Rows()[std::get<0>(i.param)].name) +
                                  (std::get<1>(i.param) ? "ByteByByte" : "");
                         });

TEST(Requests, CutAnywhere) {
  // A caller leaves after n bytes of its Request, for each n.
  // Expect: each is refused, the log says why (of some: it is bounded), the next caller is served.
  const int descriptors = CountDescriptors();
  {
    Site site;
    ::testing::internal::CaptureStderr();
    const std::string whole = OwnRequest();
    for (size_t n = 0; n < whole.size(); ++n) {
      testing::Caller caller(site.port());
      caller.Say(whole.substr(0, n));
      caller.HalfClose();
      EXPECT_TRUE(caller.HearOut()) << n;
    }
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr("it left before its request was whole"));
    EXPECT_TRUE(site.ServesTheNext());
    EXPECT_EQ(site.counters().refused, whole.size());
  }
  EXPECT_EQ(CountDescriptors(), descriptors);
}

TEST(Requests, NothingIsSaidBeforeOneIsWhole) {
  // One caller's Request lacks a byte, a later caller's is whole and has arrived (RFC 5044 7.1.2).
  // Expect: neither an answer to the first nor a request of it; with that byte there is one.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  const std::string port = std::to_string(listener.port());
  const std::string first = Frame({.data = "first"});
  testing::Caller slow(port), quick(port);
  slow.Say(first.substr(0, first.size() - 1));
  quick.Say(Frame({.data = "second"}));
  EXPECT_EQ(Check(listener.Next(absl::Seconds(20))).private_data(), "second");
  EXPECT_FALSE(slow.HasHeard());
  EXPECT_EQ(listener.Next(absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  slow.Say(first.substr(first.size() - 1));
  EXPECT_EQ(Check(listener.Next(absl::Seconds(20))).private_data(), "first");
}

TEST(Requests, RejectIsAReplyWithR) {
  // Expect: key, R, the revision of the Request, the private data; then the end of the stream.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  testing::Caller caller(std::to_string(listener.port()));
  caller.Say(Frame({.data = "let me in"}));
  Check(Check(listener.Next(absl::Seconds(20))).Reject("no"));
  std::string heard;
  EXPECT_TRUE(caller.HearOut(&heard));
  EXPECT_EQ(heard, Frame({.key = "MPA ID Rep Frame", .flags = 0x20, .data = "no"}));
}

TEST(Requests, Silence) {
  // Callers that stop at each step: after nothing, in the key, behind the header, one byte early.
  // Expect: the listener hangs up when its deadline is over, and says why.
  Site site({.handshake_deadline = absl::Milliseconds(50)});
  const std::string whole = OwnRequest();
  for (const size_t n : {size_t{0}, size_t{7}, size_t{20}, whole.size() - 1}) {
    ::testing::internal::CaptureStderr();
    testing::Caller caller(site.port());
    caller.Say(whole.substr(0, n));
    EXPECT_TRUE(caller.HearOut());
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr("refused " + caller.address() + ": it said nothing in time"));
  }
}

// Standard error, while it is a pipe that is full: who logs waits until it is drained.
class FullStderr {
 public:
  FullStderr() : stderr_(dup(2)) {
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) != 0) return;
    const std::string some(4096, '.');
    while (write(ends[1], some.data(), some.size()) > 0) continue;
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], 2);
    close(ends[1]);
    out_ = ends[0];
  }
  ~FullStderr() {
    Drain();
    dup2(stderr_, 2);
    close(stderr_);
    close(out_);
  }

  // Until a thread of this process waits in write(2, …).
  static bool SomebodyWrites() {
    const std::string call = std::to_string(SYS_write) + " 0x2 ";
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string now;
        std::getline(std::ifstream(task.path() / "syscall"), now);
        if (now.substr(0, call.size()) == call) return true;
      }
      std::this_thread::yield();
    }
    return false;
  }
  void Drain() {
    char some[4096];
    while (read(out_, some, sizeof(some)) > 0) continue;
  }

 private:
  const int stderr_;
  int out_ = -1;
};

TEST(Requests, CloseWaitsForARefusalThatIsUnderWay) {
  // The service is in the midst of a refusal, since nobody reads its log, when the listener closes.
  // Expect: Close waits for it.
  Context context = Check(Context::Open({.device = "tcp"}));
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  testing::Caller caller(std::to_string(listener.port()));
  FullStderr full;
  caller.Say(Frame({.revision = 3}));
  ASSERT_TRUE(FullStderr::SomebodyWrites());
  std::future<absl::Status> closed = std::async([&] { return listener.Close(); });
  EXPECT_EQ(closed.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  full.Drain();
  Check(closed.get());
}

}  // namespace
}  // namespace verbena::hostile
