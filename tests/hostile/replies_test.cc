// SPDX-License-Identifier: Apache-2.0
// Listeners whose Reply breaks a rule, or keeps an odd one; in one piece and byte by byte.
// Expect: the connect ends with the reason of the row, or is established; no descriptor is left
// over, and the same program connects to a good listener.
#include <string>
#include <tuple>
#include <vector>

#include "fallback/wire/extension.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/tcp_peer.h"
#include "tests/conformance/check.h"
#include "tests/hostile/end.h"

namespace verbena::hostile {
namespace {

using conformance::Check;
using ::testing::HasSubstr;

struct Row {
  const char* name;
  std::string bytes;
  const char* reason = "";  // "": established
  bool silent = false;      // goes on listening and says no more
};

std::string Reply(FrameParts parts) {
  parts.key = "MPA ID Rep Frame";
  return Frame(parts);
}
std::string Enhanced(const char* words, const std::string& more = "") {
  return Reply({.flags = 0x10, .revision = 2, .data = std::string(words, 4) + more});
}

const std::vector<Row>& Rows() {
  static const auto* const rows = new std::vector<Row>{
      {"Closes", "", "closed the connection during the hand-shake"},
      {"Http", "HTTP/1.1 400 Bad Request\r\n\r\n", "the answer is no iWARP one"},
      {"KeyInLowerCase", Frame({.key = "mpa id rep frame"}), "neither key"},
      {"KeyOfARequest", Frame({}), "an MPA Request where a Reply was due"},
      {"ItsOwnRequest", OwnRequest(), "an MPA Request where a Reply was due"},
      {"Revision0", Reply({.revision = 0}), "revision 0"},
      {"Revision3", Reply({.revision = 3}), "revision 3"},
      {"PrivateData513", Reply({.length = 513}), "PD_Length 513, exceed"},
      {"EnhancedWithoutItsWords", Reply({.flags = 0x10, .revision = 2}), "no room for the 4 bytes"},
      {"Markers", Reply({.flags = 0x80, .revision = 2}), "MPA markers, which are not supported"},
      {"ReadyFrameNotOnOffer", Enhanced("\xc0\x01\x00\x01"), "no ready-to-receive frame of those"},
      {"CutInTheKey", Reply({}).substr(0, 9), "closed the connection during the hand-shake"},
      {"CutInPrivateData", Reply({.data = std::string(99, 'd')}).substr(0, 60),
       "closed the connection during the hand-shake"},
      {"Rejects", Reply({.flags = 0x20, .revision = 2, .data = "go away"}), "rejected: go away"},
      {"RejectsWithControlCharacters", Reply({.flags = 0x20, .data = "\x1b[2J\n"}),
       "rejected: \\x1b[2J\\n"},
      {"RequiresWhatIsUnknown", Enhanced("\x80\x01\x80\x01", Record(2, 0x1f | 1u << 21, 1u << 21)),
       "feature bit 21 (unknown) is required by the peer"},
      {"Silence", "", "no answer within", true},
      {"SilenceInTheKey", Reply({}).substr(0, 9), "no answer within", true},
      {"SilenceInPrivateData", Reply({.data = std::string(9, 'd')}).substr(0, 28),
       "no answer within", true},
      // Odd and legal.
      {"Revision1", Reply({}), "", true},
      {"Revision2Plain", Reply({.revision = 2}), "", true},
      {"ReservedFlags", Reply({.flags = 0x0f, .revision = 2}), "", true},
      {"PrivateData256", Reply({.data = std::string(256, 'd')}), "", true},
      {"PrivateData512", Reply({.data = std::string(512, 'd')}), "", true},
      {"NoDepthAtAll", Enhanced("\x80\x00\x80\x00"), "", true},
      {"DepthsUnspecified", Enhanced("\xbf\xff\xbf\xff"), "", true},
      {"NoReadyFrame", Enhanced("\x00\x01\x00\x01"), "", true},
      {"BothReadyFrames", Enhanced("\x80\x01\xc0\x01"), "", true},
      {"EchoesTheRecord", Enhanced("\x80\x01\x80\x01", Record(1, 0x1f, 0x1f)), "", true},
      {"RecordBeforeZeros",
       Enhanced("\x80\x01\x80\x01", Record(2, 0x1f, 0) + std::string(150, '\0')), "", true},
  };
  return *rows;
}

class Replies : public ::testing::TestWithParam<std::tuple<size_t, bool>> {};

absl::Status Connect(Site* site, QueuePair* qp, const std::string& port, absl::Duration deadline) {
  Path path = Check(site->context().Resolve("127.0.0.1:" + port));
  return path.Connect(*qp, {.deadline = deadline}).status();
}

TEST_P(Replies, AreTakenAsTheyDeserve) {
  const Row& row = Rows()[std::get<0>(GetParam())];
  const int descriptors = CountDescriptors();
  {
    const testing::WrongServer peer(row.bytes, row.silent, std::get<1>(GetParam()));
    Site site;
    QueuePair qp = site.NewQueuePair();
    const bool waits = std::string(row.reason).starts_with("no answer");
    const absl::Status status =
        Connect(&site, &qp, peer.port(), waits ? absl::Milliseconds(50) : absl::Seconds(60));
    EXPECT_EQ(status.ok(), *row.reason == '\0') << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.reason));
    if (status.ok()) {
      EXPECT_EQ(qp.state(), QpState::kRts);
    } else {
      EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:" + peer.port()));
    }
    EXPECT_TRUE(site.ServesTheNext());
    qp = {};
  }
  EXPECT_EQ(CountDescriptors(), descriptors);
}

INSTANTIATE_TEST_SUITE_P(Table, Replies,
                         ::testing::Combine(::testing::Range<size_t>(0, Rows().size()),
                                            ::testing::Bool()),
                         [](const auto& i) {
                           return std::string(Rows()[std::get<0>(i.param)].name) +
                                  (std::get<1>(i.param) ? "ByteByByte" : "");
                         });

}  // namespace
}  // namespace verbena::hostile
