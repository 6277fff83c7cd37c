// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/packet_file.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fallback/wire/bytes.h"
#include "transport/log.h"

namespace verbena::pcap {
namespace {

using wire::AsBytes;
using wire::Le32;
using wire::WireStruct;
using Le16 = wire::WireInt<uint16_t, std::endian::little>;
using Le64 = wire::WireInt<uint64_t, std::endian::little>;

constexpr uint16_t kLinkTypeRaw = 101;  // packets begin with the IP header
constexpr uint16_t kOptionEnd = 0;
constexpr uint16_t kInterfaceName = 2;
constexpr uint16_t kInterfaceResolution = 9;
constexpr uint16_t kPacketFlags = 2;
constexpr uint8_t kNanoseconds = 9;  // 10^-9

struct SectionHeader {
  Le32 type = 0x0a0d0d0a;
  Le32 length = sizeof(SectionHeader);
  Le32 byte_order = 0x1a2b3c4d;
  Le16 major = 1;
  Le16 minor = 0;
  Le64 section_length = UINT64_MAX;  // unknown
  Le32 length_again = sizeof(SectionHeader);
};
static_assert(WireStruct<SectionHeader> && sizeof(SectionHeader) == 28);

struct Option {
  Le16 code = kOptionEnd;
  Le16 length = 0;
};
static_assert(WireStruct<Option> && sizeof(Option) == 4);

struct InterfaceHead {
  Le32 type = 1;
  Le32 length;
  Le16 link_type = kLinkTypeRaw;
  Le16 reserved = 0;
  Le32 snap_length = 0;  // packets are whole
};
static_assert(WireStruct<InterfaceHead> && sizeof(InterfaceHead) == 16);

struct PacketHead {
  Le32 type = 6;
  Le32 length;
  Le32 interface = 0;
  Le32 time_high;
  Le32 time_low;
  Le32 captured;
  Le32 original;
};
static_assert(WireStruct<PacketHead> && sizeof(PacketHead) == 28);

struct PacketTail {
  Option flags = {kPacketFlags, 4};
  Le32 way;
  Option end;
  Le32 length_again;
};
static_assert(WireStruct<PacketTail> && sizeof(PacketTail) == 16);

constexpr std::array<std::byte, 3> kPadding = {};
size_t Padding(size_t size) { return -size & 3; }

std::string InterfaceBlock(absl::string_view name) {
  std::string body;
  const auto append = [&body](std::span<const std::byte> bytes) {
    body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  append(AsBytes(Option{kInterfaceName, static_cast<uint16_t>(name.size())}));
  absl::StrAppend(&body, name);
  body.append(Padding(name.size()), '\0');
  append(AsBytes(Option{kInterfaceResolution, 1}));
  body.push_back(static_cast<char>(kNanoseconds));
  body.append(Padding(1), '\0');
  append(AsBytes(Option{}));
  const Le32 length = static_cast<uint32_t>(sizeof(InterfaceHead) + body.size() + sizeof(Le32));
  std::string block;
  block.swap(body);
  append(AsBytes(InterfaceHead{.length = length}));
  body.append(block);
  append(AsBytes(length));
  return body;
}

}  // namespace

PacketFile::PacketFile(int fd, std::string name, absl::string_view interface)
    : fd_(fd), name_(std::move(name)) {
  const SectionHeader section;
  const std::string block = InterfaceBlock(interface);
  const std::span<const std::byte> parts[] = {AsBytes(section),
                                              std::as_bytes(std::span(block.data(), block.size()))};
  Write(parts);
}

PacketFile::~PacketFile() { close(fd_); }

void PacketFile::Packet(int64_t at, Way way, std::span<const std::byte> headers,
                        std::span<const std::byte> payload) {
  const size_t size = headers.size() + payload.size();
  const size_t padding = Padding(size);
  PacketHead head;
  PacketTail tail;
  head.length = tail.length_again =
      static_cast<uint32_t>(sizeof(head) + size + padding + sizeof(tail));
  head.time_high = static_cast<uint32_t>(static_cast<uint64_t>(at) >> 32);
  head.time_low = static_cast<uint32_t>(at);
  head.captured = head.original = static_cast<uint32_t>(size);
  tail.way = static_cast<uint32_t>(way);
  const std::span<const std::byte> parts[] = {AsBytes(head), headers, payload,
                                              std::span(kPadding).first(padding), AsBytes(tail)};
  Write(parts);
  ++packets_;
}

void PacketFile::Write(std::span<const std::span<const std::byte>> parts) {
  if (failed_) return;
  std::array<iovec, 5> pieces;
  ssize_t want = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    pieces[i] = {const_cast<std::byte*>(parts[i].data()), parts[i].size()};
    want += static_cast<ssize_t>(parts[i].size());
  }
  ssize_t done;
  do {
    done = writev(fd_, pieces.data(), static_cast<int>(parts.size()));
  } while (done < 0 && errno == EINTR);
  if (done == want) {
    size_ += want;
    return;
  }
  // A regular file takes less than all of it when there is no more room.
  const int error = done < 0 ? errno : ENOSPC;
  failed_ = true;
  (void)!ftruncate(fd_, size_);  // readers stumble over half a packet
  VERBENA_LOG(kError, "fallback", "capture ", name_, ": ", strerror(error), " after ", packets_,
              " packets; it ends here, and the program goes on. Make room or name another file");
}

}  // namespace verbena::pcap
