// SPDX-License-Identifier: Apache-2.0
// Reads a capture back, for tests: by the layout of the formats, not by the writer's structs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace verbena::pcap {

struct ReadPacket {
  int64_t at = 0;
  uint32_t way = 0;  // 1 in, 2 out
  bool ipv6 = false;
  uint16_t from = 0, to = 0;  // ports
  uint32_t sequence = 0, acknowledged = 0;
  uint8_t flags = 0;
  bool good_checksums = false;
  std::string payload;
};

// A file in memory; these throw what is wrong.
int NewFile();
std::string Contents(int fd);
std::vector<ReadPacket> ReadPackets(const std::string& contents);

// "MPA ID Req Frame" and so on with `size` bytes of private data; an FPDU of `size` bytes of ULPDU.
std::string MpaFrame(bool reply, size_t size);
std::string Fpdu(size_t size, char fill);

}  // namespace verbena::pcap
