// SPDX-License-Identifier: Apache-2.0
// Lends a megabyte to one client and looks at it when the client has gone.
//   lend_a_megabyte_server [:7471]
#include <cstddef>
#include <cstdio>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example

int main(int argc, char** argv) {
  auto context = Check(Context::Open());  // TCP always; devices when there are any
  auto listener = Check(context.Listen(argc > 1 ? argv[1] : ":7471"));
  printf("listening on %s\n", listener.address().c_str());
  fflush(stdout);
  auto request = Check(listener.Next());  // blocking; or listener.fd() in your own epoll
  auto& device = request.device();        // "tcp", "mlx5_0" …; request.info() says why

  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue({.entries = 64}));
  auto memory = std::vector<std::byte>(1 << 20);
  auto region =
      Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteRead | Access::kRemoteWrite));
  auto qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  Check(request.Accept(qp, {.private_data = Encode(region.remote())}));
  Check(qp.WaitUntilDisconnected());  // reads and writes need nothing from us

  printf("the client left this: %s\n", reinterpret_cast<const char*>(memory.data()));
}
