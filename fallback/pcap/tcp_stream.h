// SPDX-License-Identifier: Apache-2.0
// One end of a TCP connection as packets of a capture: one IP packet an MPA frame or FPDU, however
// the kernel moved them. Addresses, ports and order are real; sequence numbers, the three packets
// of the hand-shake, flags and windows are made up. Callers take turns, with all of one file.
#pragma once

#include <cstdint>
#include <span>

#include "fallback/io/io.h"
#include "fallback/pcap/frame_splitter.h"
#include "fallback/pcap/packet_file.h"

namespace verbena::pcap {

class TcpStream {
 public:
  TcpStream(PacketFile* file, const io::Address& local, const io::Address& peer)
      : file_(file), local_(local), peer_(peer) {}
  ~TcpStream();
  TcpStream(const TcpStream&) = delete;
  TcpStream& operator=(const TcpStream&) = delete;

  // The beginning: `called` by this end or by the other. `first`: where its numbers begin, another
  // one for each connection, since addresses come again.
  void Begin(int64_t at, bool called, uint32_t first);
  // The same if the other end is in the file, too: from here on each writes what it sends.
  void Join(TcpStream* other);

  // `count` bytes of `pieces` were sent or received.
  void Moved(int64_t at, Way way, std::span<const iovec> pieces, size_t count);
  // No more comes this way: a FIN, or a RST. What was said before is not said again.
  void Ended(int64_t at, Way way, bool reset);

 private:
  struct Half {
    FrameSplitter frames;
    uint32_t next = 0;   // sequence number
    bool ended = false;  // by either
    bool reset = false;
  };
  Half& half(Way way) { return way == Way::kOut ? out_ : in_; }
  void Data(int64_t at, Way way, std::span<const std::byte> bytes);
  void Segment(int64_t at, Way way, uint8_t flags, std::span<const std::byte> payload);

  PacketFile* const file_;
  const io::Address local_, peer_;
  Half in_, out_;
  TcpStream* other_ = nullptr;  // the end that is in the file and open
  bool other_writes_ = false;   // it was there: what comes in is written already
};

}  // namespace verbena::pcap
