// SPDX-License-Identifier: Apache-2.0
// A Terminate of any body, alone and into a live queue pair.
#include "fallback/wire/terminate.h"

#include <string>

#include "fallback/engine/test_fpdu.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/subject.h"

namespace verbena::fuzz {
namespace {

bool Within(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void CheckDecoded(std::span<const std::byte> body) {
  const absl::StatusOr<wire::Terminate> t = wire::DecodeTerminate(body);
  FUZZ_CHECK(t.ok() == (body.size() >= sizeof(wire::TerminateControl)));
  if (!t.ok()) return;
  FUZZ_CHECK(Within(t->ddp_header, body) && Within(t->read_request, body));
  FUZZ_CHECK(t->ddp_header.empty() || t->ddp_header.size() == wire::kTaggedUlpdu ||
             t->ddp_header.size() == wire::kUntaggedUlpdu);
  FUZZ_CHECK(t->read_request.empty() || t->read_request.size() == 28);
  FUZZ_CHECK(std::string(wire::TerminateText(t->error)) != "");
  FUZZ_CHECK(!t->ambiguous || wire::IsAssigned(t->error) == wire::IsAssigned(t->other));
  // What has a header has a flag of the RFC's, so it can be read in one way only.
  std::byte again[wire::kMaxTerminateBody];
  const size_t size = wire::EncodeTerminate(*t, again);
  if (size == 0 || t->ddp_header.empty()) return;
  const absl::StatusOr<wire::Terminate> twice = wire::DecodeTerminate({again, size});
  FUZZ_CHECK(twice.ok() && !twice->ambiguous && !twice->truncated);
  FUZZ_CHECK(twice->error.layer == (t->error.layer & 15) && twice->error.code == t->error.code);
  FUZZ_CHECK(twice->segment_length == t->segment_length);
}

void Run(Input input) {
  SubjectOptions options;
  const uint8_t bits = input.Byte();
  options.session =
      (bits & 1) != 0 ? engine::OwnSession(true) : engine::ForeignSession((bits & 2) != 0);
  const size_t posted = bits >> 6;
  std::span<const std::byte> body = input.Rest();
  body = body.first(std::min<size_t>(body.size(), wire::kMaxUntaggedPayload));
  CheckDecoded(body);
  Subject subject(options);
  subject.PostReceive(100, false);
  for (size_t i = 0; i < posted; ++i) {
    subject.PostSend(i == 0 ? Opcode::kRead : Opcode::kWrite, 100, SendFlags::kNone, 1);
  }
  subject.Drain(SIZE_MAX, true);
  engine::Chunks chunks((bits & 4) != 0 ? 1 : 0);
  subject.Feed(engine::MakeFpdu(engine::UntaggedOf(wire::Opcode::kTerminate, 1), body), &chunks);
  FUZZ_CHECK(subject.qp().state() == QpState::kErr, "a Terminate ends the stream");
  FUZZ_CHECK(!subject.qp().cause().ok());
  subject.Finish();
}

}  // namespace
}  // namespace verbena::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  verbena::fuzz::Run({data, size});
  return 0;
}
