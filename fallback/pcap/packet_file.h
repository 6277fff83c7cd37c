// SPDX-License-Identifier: Apache-2.0
// Writes a pcapng file of IP packets (draft-ietf-opsawg-pcapng: one section, one interface of link
// type RAW, times in nanoseconds). Each packet is one write(2), so that nothing is lost when the
// process ends in any way, and the file can be read while it grows. Callers take turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace verbena::pcap {

// As this end sees it; numbers of the option epb_flags.
enum class Way : uint8_t { kIn = 1, kOut = 2 };

class PacketFile {
 public:
  // Takes `fd` over, which stands where the file shall begin. `name` is for messages, `interface`
  // stands in the file: the end that tells, when captures of both ends are merged.
  PacketFile(int fd, std::string name, absl::string_view interface);
  ~PacketFile();
  PacketFile(const PacketFile&) = delete;
  PacketFile& operator=(const PacketFile&) = delete;

  // `at`: nanoseconds since 1970. After the first error, which is logged, nothing is written.
  void Packet(int64_t at, Way way, std::span<const std::byte> headers,
              std::span<const std::byte> payload);

 private:
  void Write(std::span<const std::span<const std::byte>> parts);

  const int fd_;
  const std::string name_;
  bool failed_ = false;
  int64_t size_ = 0;  // of what is whole
  uint64_t packets_ = 0;
};

}  // namespace verbena::pcap
