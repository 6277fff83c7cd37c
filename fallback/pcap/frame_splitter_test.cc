// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/frame_splitter.h"

#include <algorithm>
#include <string>
#include <vector>

#include "fallback/pcap/test_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::pcap {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

class Split {
 public:
  void Feed(const std::string& bytes) {
    splitter_.Feed(std::as_bytes(std::span(bytes.data(), bytes.size())), Take());
  }
  void Finish() { splitter_.Finish(Take()); }
  std::vector<std::string> frames;

 private:
  std::function<void(std::span<const std::byte>)> Take() {
    return [this](std::span<const std::byte> frame) {
      frames.emplace_back(reinterpret_cast<const char*>(frame.data()), frame.size());
    };
  }
  FrameSplitter splitter_;
};

// A stream with every kind of frame and every padding, in pieces of every small size, and whole.
// Expect: the frames.
TEST(FrameSplitterTest, FindsTheFramesInAnyPieces) {
  const std::vector<std::string> frames = {MpaFrame(false, 20), Fpdu(14, 'a'),    Fpdu(19, 'b'),
                                           Fpdu(18, 'c'),       Fpdu(65535, 'd'), Fpdu(0, 'e'),
                                           Fpdu(17, 'f')};
  std::string stream;
  for (const std::string& frame : frames) stream += frame;
  for (const size_t piece : {1, 2, 3, 5, 20, 1000, 1'000'000}) {
    Split split;
    for (size_t at = 0; at < stream.size(); at += piece) split.Feed(stream.substr(at, piece));
    split.Finish();
    EXPECT_THAT(split.frames, ElementsAreArray(frames)) << "pieces of " << piece;
  }
}

// A Request, rejected; a second Request on the same connection, which is taken; an FPDU.
// Expect: three frames.
TEST(FrameSplitterTest, ASecondRequestIsAFrame) {
  Split split;
  const std::string first = MpaFrame(false, 0), second = MpaFrame(false, 512), fpdu = Fpdu(14, 0);
  split.Feed(first);
  split.Feed(second + fpdu);
  EXPECT_THAT(split.frames, ElementsAre(first, second, fpdu));
}

// Something else than MPA. Expect: each piece as it came, from the byte on that tells.
TEST(FrameSplitterTest, AStrangersStreamStaysAsItIs) {
  Split split;
  split.Feed("GET / HTTP/1.1\r\n");
  split.Feed("\r\n");
  EXPECT_THAT(split.frames, ElementsAre("GET / HTTP/1.1\r\n", "\r\n"));

  Split late;
  late.Feed("MPA ID");
  EXPECT_THAT(late.frames, IsEmpty());
  late.Feed("IOT");
  EXPECT_THAT(late.frames, ElementsAre("MPA IDIOT"));
}

// The stream ends within a frame. Expect: what there is of it, once.
TEST(FrameSplitterTest, TheRestOfABrokenStreamIsKept) {
  Split split;
  split.Feed(MpaFrame(true, 4));
  split.Feed(Fpdu(100, 'x').substr(0, 50));
  EXPECT_EQ(split.frames.size(), 1u);
  split.Finish();
  split.Finish();
  EXPECT_THAT(split.frames, ElementsAre(MpaFrame(true, 4), Fpdu(100, 'x').substr(0, 50)));
}

}  // namespace
}  // namespace verbena::pcap
