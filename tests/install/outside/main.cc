// SPDX-License-Identifier: Apache-2.0
//
// A program outside Verbena's tree: opens a context and lists the devices.
#include <verbena/verbena.h>

#include <cstdio>

int main() {
  auto context = verbena::Context::Open();
  if (!context.ok()) {
    std::fprintf(stderr, "%s\n", context.status().ToString().c_str());
    return 1;
  }
  for (const verbena::DeviceInfo& device : verbena::Context::ListDevices()) {
    std::printf("%s\n", device.name.c_str());
  }
  return 0;
}
