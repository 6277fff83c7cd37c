// SPDX-License-Identifier: Apache-2.0
// The work of raw_socket on Verbena's API, and more: two processes and the queue pairs between
// them.
#include "tests/bench/verbena_end.h"

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  std::vector<Row> rows = PingRows();
  for (Row& row : StreamRows()) rows.push_back(std::move(row));
  for (Row& row : ManyRows()) rows.push_back(std::move(row));
  return Main(argc, argv, rows);
}
