// SPDX-License-Identifier: Apache-2.0
// Two ranks that have a channel of their own for start-up, here a directory that both see: no
// listener, no port to agree on. Each writes into the other's memory.
//   out_of_band 0 /tmp/job & out_of_band 1 /tmp/job
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example

namespace {

int rank = 0;
std::string job;

// Tells the other rank `mine` and returns what it tells. Yours is MPI_Sendrecv, a key-value store …
std::string Exchange(const std::string& what, const std::string& mine) {
  const std::string path = job + "/" + what + ".";
  std::ofstream(path + "part" + std::to_string(rank), std::ios::binary) << mine;
  std::filesystem::rename(path + "part" + std::to_string(rank), path + std::to_string(rank));
  const std::string theirs = path + std::to_string(1 - rank);
  while (!std::filesystem::exists(theirs)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::ifstream file(theirs, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: out_of_band 0|1 DIRECTORY\n");
    return 2;
  }
  rank = atoi(argv[1]) == 0 ? 0 : 1;
  job = argv[2];

  auto context = Check(Context::Open());
  Device& device = *Check(context.Choose(Exchange("context", context.address())));

  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue({.entries = 64}));
  auto memory = std::vector<std::byte>(8192);
  auto region = Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite));
  auto qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  auto lent = Check(Decode(Exchange("memory", Encode(region.remote()))));
  auto peer = Exchange("address", Check(qp.address()));
  Check(qp.Connect(peer));  // both ends, in any order

  snprintf(reinterpret_cast<char*>(memory.data()), 4096, "greetings from rank %d", rank);
  Check(qp.PostSend({.opcode = Opcode::kWrite,
                     .local = region.slice(0, 4096),
                     .remote = lent.at(4096),
                     .id = 1}));
  for (const WorkCompletion& wc : Check(cq.Wait(1))) Check(wc.ToStatus());
  Exchange("written", "done");  // a barrier: the other's write is complete as well

  printf("rank %d over %s has %s\n", rank, device.name().c_str(),
         reinterpret_cast<const char*>(memory.data() + 4096));
  fflush(stdout);
  Exchange("read", "done");
  return 0;
}
