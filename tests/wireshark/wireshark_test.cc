// SPDX-License-Identifier: Apache-2.0
// Captures of two processes that do everything once, as Wireshark reads them: by itself, and with
// tools/wireshark/verbena.lua.
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/tcp_peer.h"
#include "tests/process/process.h"
#include "tests/wireshark/every_operation.h"
#include "tests/wireshark/middleman.h"
#include "tests/wireshark/tshark.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr char kOperations[] = "tests/wireshark/every_operation";
constexpr char kTool[] = "tools/verbena/verbena";
constexpr char kOpcode[] = "iwarp_rdma.opcode";

// Types of control messages.
constexpr char kAck[] = "1", kRnrNak[] = "2", kResume[] = "3", kReady[] = "4", kNak[] = "5",
               kBye[] = "6";

class Wireshark : public ::testing::Test {
 protected:
  void SetUp() override {
    if (FindTshark().empty()) GTEST_SKIP() << "tshark is missing; `tools/setup --test` installs it";
  }
  void TearDown() override {
    for (const std::string& file : {caller_, called_}) unlink(file.c_str());
  }

  static ProcessOptions Capture(const std::string& file) {
    return {.environment = {"VERBENA_PCAP=" + file, "VERBENA_LOG="}};
  }

  // Every operation between two processes on `host`, both captured.
  void Run(const Changes& changes, const std::string& host = "127.0.0.1") {
    Process server({kOperations, "serve", host + ":0"}, Capture(called_));
    const std::string line = server.LineWith("listening on ");
    ASSERT_NE(line, "") << server.err();
    std::string port = line.substr(line.rfind(':') + 1);
    std::optional<Middleman> middleman;
    if (changes.cut_record || changes.ask_for_crc) {
      middleman.emplace(port, changes);
      port = middleman->port();
    }
    std::vector<std::string> call = {kOperations, "call", host + ":" + port};
    if (changes.cut_record) call.push_back("plain");
    const Finished client = RunToEnd(call, Capture(caller_));
    ASSERT_EQ(client.status, 0) << client.err;
    ASSERT_EQ(server.Wait(), 0) << server.err();
    EXPECT_EQ(client.err + server.err(), "");
  }

  const std::string base_ = absl::StrCat(::testing::TempDir(), "/wireshark_", getpid());
  const std::string caller_ = base_ + "_caller.pcapng", called_ = base_ + "_called.pcapng";
};

// Messages by opcode, which is how often a last segment of it was sent. Sends (3) and control
// messages (0xf) are counted where their number is fixed.
using Opcodes = std::map<std::string, int>;
const Opcodes kPlainMessages = {{"0x00", 5}, {"0x01", 3}, {"0x02", 3}, {"0x03", 2},
                                {"0x04", 1}, {"0x05", 1}, {"0x06", 1}, {"0x07", 1}};
const Opcodes kOwnMessages = {{"0x00", 7}, {"0x01", 3}, {"0x02", 3}, {"0x04", 1},
                              {"0x05", 1}, {"0x06", 1}, {"0x07", 1}, {"0x08", 1},
                              {"0x09", 1}, {"0x0a", 2}, {"0x0b", 2}};

struct Variant {
  std::string name;
  Changes changes;
};
class EveryOperation : public Wireshark, public ::testing::WithParamInterface<Variant> {};

// Wireshark alone, own and foreign ends, CRC on and off. Expect: a connection from SYN to FIN;
// every frame is iWARP and none malformed; each operation is there; checksums are right; CRCs are
// good where CRC is on; a foreign end gets no extension and no FPDU beyond the MSS.
TEST_P(EveryOperation, IsReadAsIwarp) {
  const Changes& changes = GetParam().changes;
  Run(changes);
  for (const std::string& file : {caller_, called_}) {
    const std::vector<Row> rows =
        Dissect(file, With::kNothing,
                {"frame.number", "tcp.len", "tcp.flags.syn", "tcp.flags.fin", "tcp.checksum.status",
                 "ip.checksum.status", "tcp.analysis.flags", "_ws.malformed", "iwarp_mpa.key.req",
                 "iwarp_mpa.key.rep", kOpcode, "iwarp_ddp.last_flag"});
    const int packets = static_cast<int>(rows.size());
    EXPECT_THAT(Count(rows, "tcp.flags.syn"), Contains(Pair("1", 2)));
    EXPECT_THAT(Count(rows, "tcp.flags.fin"), Contains(Pair("1", 2)));
    EXPECT_THAT(Count(rows, "tcp.checksum.status"), ElementsAre(Pair("1", packets)));
    EXPECT_THAT(Count(rows, "ip.checksum.status"), ElementsAre(Pair("1", packets)));
    EXPECT_THAT(Count(rows, "tcp.analysis.flags"), IsEmpty());
    EXPECT_THAT(Count(rows, "_ws.malformed"), IsEmpty());

    int frames = 0, fpdus = 0;
    Opcodes messages;
    for (Row row : rows) {
      if (row["tcp.len"] == "0") continue;
      ++frames;
      if (row[kOpcode].empty()) continue;
      ++fpdus;
      if (row["iwarp_ddp.last_flag"] == "1") ++messages[row[kOpcode]];
    }
    EXPECT_EQ(Count(rows, "iwarp_mpa.key.req").size(), 1u);
    EXPECT_EQ(Count(rows, "iwarp_mpa.key.rep").size(), 1u);
    EXPECT_EQ(fpdus, frames - 2) << "frames that are no iWARP";
    const Crcs crcs = JudgeCrcs(file);
    EXPECT_EQ(crcs.good, changes.ask_for_crc ? fpdus : 0);
    EXPECT_EQ(crcs.bad, 0);
    if (!changes.cut_record) {
      EXPECT_GE(messages["0x03"], 4);  // one more for each try that found no receive
      EXPECT_GE(messages["0x0f"], 5);
      messages.erase("0x03");
      messages.erase("0x0f");
    }
    EXPECT_EQ(messages, changes.cut_record ? kPlainMessages : kOwnMessages);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ends, EveryOperation,
    ::testing::Values(Variant{"Own", {}}, Variant{"OwnCrc", {.ask_for_crc = true}},
                      Variant{"Foreign", {.cut_record = true}},
                      Variant{"ForeignCrc", {.cut_record = true, .ask_for_crc = true}}),
    [](const auto& info) { return info.param.name; });

// A capture with CRC in which one byte of payload is another. Expect: one CRC is bad; else the
// checks above would prove nothing.
TEST_F(Wireshark, SeesABadCrc) {
  Run({.ask_for_crc = true});
  std::fstream file(caller_, std::ios::in | std::ios::out | std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  const size_t at = all.find(std::string("\xca\xfe\x00\x02", 4));
  ASSERT_NE(at, std::string::npos);
  file.seekp(static_cast<std::streamoff>(at));
  file.put('\x4a');
  file.close();
  EXPECT_EQ(JudgeCrcs(caller_).bad, 1);
}

// The same over IPv6. Expect: every frame is iWARP.
TEST_F(Wireshark, ReadsIpv6) {
  if (!BoundSocket(false, true).ok()) GTEST_SKIP() << "this machine has no IPv6";
  Run({}, "[::1]");
  const std::vector<Row> rows = Dissect(
      caller_, With::kNothing, {"ipv6.src", "tcp.checksum.status", "_ws.malformed", kOpcode});
  const int packets = static_cast<int>(rows.size());
  EXPECT_THAT(Count(rows, "ipv6.src"), ElementsAre(Pair("::1", packets)));
  EXPECT_THAT(Count(rows, "tcp.checksum.status"), ElementsAre(Pair("1", packets)));
  EXPECT_THAT(Count(rows, "_ws.malformed"), IsEmpty());
  EXPECT_THAT(Count(rows, kOpcode), Contains(Pair("0x07", 1)));
}

// A process is killed in the middle of it. Expect: what it did before is in the file, whole.
TEST_F(Wireshark, ReadsWhatAKilledProcessLeft) {
  Process server({kTool, "ping", "-s", "-a", "127.0.0.1", "-p", "0"}, Capture(called_));
  const std::string line = server.LineWith("listening on ");
  Process client({kTool, "ping", "-c", "-v", "-a", "127.0.0.1", "-p",
                  line.substr(line.rfind(':') + 1), "-C", "1000000"},
                 Capture(caller_));
  ASSERT_NE(client.LineWith("rdma-ping-2:"), "");
  client.Kill(SIGKILL);
  client.Wait();
  const std::vector<Row> rows = Dissect(caller_, With::kNothing, {"_ws.malformed", kOpcode});
  EXPECT_THAT(Count(rows, kOpcode), Contains(Pair("0x01", Ge(3))));
  EXPECT_THAT(Count(rows, "_ws.malformed"), IsEmpty());
}

// What Wireshark does not know, with our script. Expect: the record of both ends, control messages
// with the request that each is about, immediates, atomics, and nothing malformed.
TEST_F(Wireshark, OurLuaReadsTheExtensions) {
  Run({});
  for (const std::string& file : {caller_, called_}) {
    const std::vector<Row> rows =
        Dissect(file, With::kOurLua,
                {"_ws.malformed",           "verbena.malformed",        "verbena.record.role",
                 "verbena.record.version",  "verbena.record.fpdu_kib",  "verbena.record.features",
                 "verbena.record.required", "verbena.mpa.peer_to_peer", "verbena.private_data",
                 "verbena.immediate",       "verbena.atomic.code",      "verbena.atomic.operand",
                 "verbena.atomic.compare",  "verbena.atomic.original",  "verbena.control.type",
                 "verbena.control.rsn",     "verbena.control.about",    "verbena.control.timer",
                 "verbena.control.code",    "verbena.control.text",     "verbena.rsn"});
    const auto read = [&rows](const std::vector<std::string>& fields) {
      return Only(rows, fields);
    };
    EXPECT_THAT(read({"_ws.malformed", "verbena.malformed"}), IsEmpty());
    for (const char* role : {"1", "2"}) {
      EXPECT_THAT(read({"verbena.record.role", "verbena.record.version", "verbena.record.fpdu_kib",
                        "verbena.record.features", "verbena.record.required",
                        "verbena.mpa.peer_to_peer", "verbena.private_data"}),
                  Contains(AllOf(Contains(Pair("verbena.record.role", role)),
                                 Contains(Pair("verbena.record.version", "1")),
                                 Contains(Pair("verbena.record.fpdu_kib", "60")),
                                 Contains(Pair("verbena.record.features", "0x0000001f")),
                                 Contains(Pair("verbena.record.required", "0x00000000")),
                                 Contains(Pair("verbena.mpa.peer_to_peer", "1")),
                                 SizeIs(*role == '1' ? 6 : 7))));
    }
    EXPECT_THAT(Count(read({"verbena.immediate"}), "verbena.immediate"),
                ElementsAre(Pair("0xcafe0001", 1), Pair("0xcafe0002", 1), Pair("0xcafe0003", 1)));
    EXPECT_THAT(read({"verbena.atomic.code", "verbena.atomic.operand", "verbena.atomic.compare",
                      "verbena.atomic.original"}),
                ElementsAre(Row{{"verbena.atomic.code", "0"},
                                {"verbena.atomic.operand", "0x0000000000000007"},
                                {"verbena.atomic.compare", "0x0000000000000000"}},
                            Row{{"verbena.atomic.original", "0x0000000000000000"}},
                            Row{{"verbena.atomic.code", "2"},
                                {"verbena.atomic.operand", "0x0000000000000009"},
                                {"verbena.atomic.compare", "0x0000000000000001"}},
                            Row{{"verbena.atomic.original", "0x0000000000000007"}}));

    std::set<std::string> types;
    std::string refused;
    for (Row row :
         read({"verbena.control.type", "verbena.control.rsn", "verbena.control.about",
               "verbena.control.timer", "verbena.control.code", "verbena.control.text"})) {
      const std::string type = row["verbena.control.type"];
      types.insert(type);
      if (type == kNak) refused = row["verbena.control.rsn"];
      EXPECT_EQ(row["verbena.control.rsn"].empty(), type == kBye);
      EXPECT_EQ(row["verbena.control.about"].empty(), type == kBye) << row["verbena.control.rsn"];
      EXPECT_EQ(row["verbena.control.timer"], type == kRnrNak ? "12" : "");
      EXPECT_EQ(row["verbena.control.code"], type == kNak ? "1" : "");
      EXPECT_EQ(row["verbena.control.text"].find("write to key") == 0, type == kNak);
    }
    types.erase(kReady);  // the request may come again just when there is a receive
    EXPECT_EQ(types, (std::set<std::string>{kAck, kRnrNak, kResume, kNak, kBye}));
    EXPECT_EQ(refused, "17");
    // The numbers that the script counts are those of the ends: the last request is refused.
    EXPECT_EQ(read({"verbena.rsn"}).back().at("verbena.rsn"), "17");
  }
}

}  // namespace
}  // namespace verbena::testing
