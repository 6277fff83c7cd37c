// SPDX-License-Identifier: Apache-2.0
// What stands in private data: the record, the note before it, the question and the answer of a
// rendezvous, an out-of-band call.
#include <string>
#include <vector>

#include "connect/messages.h"
#include "fallback/engine/note.h"
#include "fallback/engine/token.h"
#include "fallback/wire/extension.h"
#include "tests/fuzz/input.h"

namespace verbena::fuzz {
namespace {

using Bytes = std::span<const std::byte>;

bool Equal(Bytes a, Bytes b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

std::string Text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void CheckPlain(const std::string& text) {
  for (const char c : text) FUZZ_CHECK(c >= ' ' && c <= '~', text);
}

void FindRecord(Input input) {
  const uint8_t role = input.Byte();
  const Bytes data = input.Rest();
  const auto found = wire::FindRecord(data, role);
  if (!found) return;
  FUZZ_CHECK(found->record.role == role);
  // It is where it says, and only zeros follow.
  const size_t at = found->application.size();
  std::byte raw[sizeof(wire::RecordBytes)];
  FUZZ_CHECK(wire::AppendRecord(found->record, raw) == sizeof raw);
  FUZZ_CHECK(Equal(data.first(at), found->application));
  FUZZ_CHECK(Equal(data.subspan(at, sizeof raw), raw));
  for (const std::byte b : data.subspan(at + sizeof raw)) FUZZ_CHECK(b == std::byte{0});
}

wire::Record MakeRecord(Input* input, uint8_t role) {
  return {role, input->Byte(), static_cast<uint32_t>(input->Number(4)),
          static_cast<uint32_t>(input->Number(4))};
}

// Both ends come to the same result, and a record survives any tail of zeros.
void Negotiate(Input input) {
  const wire::Record a = MakeRecord(&input, wire::kRoleRequest);
  const wire::Record b = MakeRecord(&input, wire::kRoleReply);
  const auto ours = wire::Negotiate(a, b), theirs = wire::Negotiate(b, a);
  FUZZ_CHECK(ours.ok() == theirs.ok());
  if (ours.ok()) {
    FUZZ_CHECK(*ours == *theirs);
    FUZZ_CHECK((ours->features & ~(a.features & b.features)) == 0);
    FUZZ_CHECK(ours->max_payload <= uint32_t{wire::kMaxFpduKib} * 1024);
  }
  const size_t tail = input.Byte() % 64;
  const Bytes application = input.Rest();
  std::vector<std::byte> data(application.begin(), application.end());
  data.resize(application.size() + sizeof(wire::RecordBytes) + tail);
  wire::AppendRecord(a, std::span(data).subspan(application.size()));
  // An end that puts a record into its own record's fields, or before it, confuses only itself.
  const std::string text(reinterpret_cast<const char*>(data.data()), data.size());
  const size_t at = application.size();
  if (text.find("Vrb1") != at || text.rfind("Vrb1") != at) return;
  const auto found = wire::FindRecord(data, wire::kRoleRequest);
  FUZZ_CHECK(found && found->record == a && Equal(found->application, application));
  FUZZ_CHECK(!wire::FindRecord(data, wire::kRoleReply), "an echo counts for nothing");
}

void Note(Input input) {
  const Bytes data = input.Rest();
  Bytes rest = data;
  for (const Candidate& each : engine::TakeNote(&rest)) {
    CheckPlain(each.device);
    CheckPlain(each.reason);
  }
  FUZZ_CHECK(rest.size() <= data.size() && Equal(rest, data.first(rest.size())));
  FUZZ_CHECK(data.size() - rest.size() <= wire::kMaxNote + 1);
}

void Rendezvous(Input input) {
  const std::string bytes = Text(input.Rest());
  if (const auto ask = connect::DecodeAsk(bytes)) {
    FUZZ_CHECK(ask->addresses.size() <= connect::kMaxAddresses);
    const auto again = connect::DecodeAsk(connect::Encode(*ask));
    FUZZ_CHECK(again && again->purpose == ask->purpose && again->links == ask->links &&
               again->nth == ask->nth && again->addresses == ask->addresses);
  }
  if (const auto answer = connect::DecodeAnswer(bytes)) {
    CheckPlain(answer->text);
    FUZZ_CHECK(answer->text.size() <= connect::kMaxRefusalText);
    FUZZ_CHECK(answer->reason != connect::Reason::kNone ||
               (answer->port != 0 && answer->link != Link::kNone));
    FUZZ_CHECK(std::string(connect::ReasonName(answer->reason)) != "");
    const auto again = connect::DecodeAnswer(connect::Encode(*answer));
    FUZZ_CHECK(again && again->text == answer->text && again->port == answer->port &&
               again->link == answer->link && again->address == answer->address &&
               again->token == answer->token && again->more == answer->more);
  }
}

void Tokens(Input input) {
  connect::Token token;
  for (uint8_t& b : token) b = input.Byte();
  const std::string data = Text(input.Rest());
  const bool same = data.size() >= token.size() &&
                    std::equal(token.begin(), token.end(), data.begin(),
                               [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); });
  FUZZ_CHECK(connect::BringsToken(data, token) == same);
  if (const auto call = engine::DecodeCall(data)) FUZZ_CHECK(engine::EncodeCall(*call) == data);
}

void Run(Input input) {
  switch (input.Byte() % 8) {
    case 0:
    case 1:
      return FindRecord(input);
    case 2:
      return Negotiate(input);
    case 3:
      return Note(input);
    case 4:
      return Tokens(input);
    default:
      return Rendezvous(input);
  }
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
