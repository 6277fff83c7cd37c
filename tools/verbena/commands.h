// SPDX-License-Identifier: Apache-2.0
// The commands of `verbena`. Each takes its own argc and argv (argv[0]: its name) and returns the
// exit status.
#pragma once

namespace verbena::tool {

int Devices(int argc, char** argv);
int Ping(int argc, char** argv);
int Perf(int argc, char** argv);
int Run(int argc, char** argv);

}  // namespace verbena::tool
