// SPDX-License-Identifier: Apache-2.0
// Writes into memory that a server lends, and reads it back.
//   lend_a_megabyte_client HOST:7471
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example

int main(int argc, char** argv) {
  auto context = Check(Context::Open());
  auto path = Check(context.Resolve(argc > 1 ? argv[1] : "localhost:7471"));
  auto& device = path.device();  // one that reaches the server

  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue({.entries = 64}));
  auto memory = std::vector<std::byte>(8192);
  auto region = Check(pd.Register(memory, Access::kLocalWrite));
  auto qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  auto accepted = Check(path.Connect(qp));
  auto lent = Check(Decode(accepted.private_data));

  strncpy(reinterpret_cast<char*>(memory.data()), "greetings from afar", 4096);
  Check(qp.PostSend(
      {.opcode = Opcode::kWrite, .local = region.slice(0, 4096), .remote = lent.at(0), .id = 1}));
  Check(qp.PostSend(
      {.opcode = Opcode::kRead, .local = region.slice(4096, 4096), .remote = lent.at(0), .id = 2}));
  // Done means: applied at the peer.
  for (const WorkCompletion& wc : Check(cq.Wait(2))) Check(wc.ToStatus());
  Check(qp.Disconnect());

  const bool same = std::equal(memory.begin(), memory.begin() + 4096, memory.begin() + 4096);
  printf("read back %s what was written\n", same ? "exactly" : "something else than");
  return same ? 0 : 1;
}
