// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/test_reader.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace verbena::pcap {
namespace {

// Little-endian, as the blocks are; big-endian, as the headers are.
uint32_t Le(const std::string& s, size_t at) {
  uint32_t value;
  if (at + sizeof(value) > s.size()) throw std::runtime_error("the file ends early");
  memcpy(&value, &s[at], sizeof(value));
  return value;
}
uint32_t Be(const std::string& s, size_t at, size_t bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(s.at(at + i));
  return value;
}

// RFC 1071: the sum over what a checksum covers is all ones.
uint32_t Fold(const std::string& s, uint32_t sum) {
  for (size_t i = 0; i < s.size(); i += 2) {
    sum += Be(s, i, 1) << 8 | (i + 1 < s.size() ? Be(s, i + 1, 1) : 0);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return sum;
}

ReadPacket Parse(const std::string& ip) {
  ReadPacket p;
  p.ipv6 = Be(ip, 0, 1) >> 4 == 6;
  const size_t size = p.ipv6 ? 40 : 20;
  const size_t length = p.ipv6 ? 40 + Be(ip, 4, 2) : Be(ip, 2, 2);
  if (length != ip.size()) throw std::runtime_error("the IP length is not the packet's");
  const std::string tcp = ip.substr(size);
  const std::string addresses = p.ipv6 ? ip.substr(8, 32) : ip.substr(12, 8);
  const uint32_t rest = 6 + static_cast<uint32_t>(tcp.size());
  p.good_checksums =
      Fold(tcp, Fold(addresses, rest)) == 0xffff && (p.ipv6 || Fold(ip.substr(0, 20), 0) == 0xffff);
  p.from = static_cast<uint16_t>(Be(tcp, 0, 2));
  p.to = static_cast<uint16_t>(Be(tcp, 2, 2));
  p.sequence = Be(tcp, 4, 4);
  p.acknowledged = Be(tcp, 8, 4);
  p.flags = static_cast<uint8_t>(Be(tcp, 13, 1));
  p.payload = tcp.substr((Be(tcp, 12, 1) >> 4) * 4);
  return p;
}

}  // namespace

int NewFile() {
  const int fd = memfd_create("capture", MFD_CLOEXEC);
  if (fd < 0) throw std::runtime_error("memfd_create");
  return fd;
}

std::string Contents(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) throw std::runtime_error("the capture cannot be read");
  std::string all(static_cast<size_t>(info.st_size), '\0');
  if (pread(fd, all.data(), all.size(), 0) != info.st_size)
    throw std::runtime_error("the capture cannot be read");
  return all;
}

std::vector<ReadPacket> ReadPackets(const std::string& contents) {
  std::vector<ReadPacket> packets;
  for (size_t at = 0; at < contents.size();) {
    const uint32_t type = Le(contents, at), length = Le(contents, at + 4);
    if (length % 4 != 0 || Le(contents, at + length - 4) != length) {
      throw std::runtime_error("a block's two lengths differ");
    }
    if (type == 6) {
      const uint32_t size = Le(contents, at + 20);
      packets.push_back(Parse(contents.substr(at + 28, size)));
      packets.back().at =
          static_cast<int64_t>(uint64_t{Le(contents, at + 12)} << 32 | Le(contents, at + 16));
      packets.back().way = Le(contents, at + 28 + (size + 3) / 4 * 4 + 4);
    }
    at += length;
  }
  return packets;
}

std::string MpaFrame(bool reply, size_t size) {
  std::string frame = reply ? "MPA ID Rep Frame" : "MPA ID Req Frame";
  frame += std::string("\x10\x02", 2);
  frame.push_back(static_cast<char>(size >> 8));
  frame.push_back(static_cast<char>(size));
  return frame + std::string(size, 'p');
}

std::string Fpdu(size_t size, char fill) {
  std::string fpdu{static_cast<char>(size >> 8), static_cast<char>(size)};
  fpdu += std::string(size, fill);
  fpdu += std::string(-fpdu.size() & 3, '\0');
  return fpdu + "crc.";
}

}  // namespace verbena::pcap
