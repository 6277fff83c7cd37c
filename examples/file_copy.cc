// SPDX-License-Identifier: Apache-2.0
// Moves a file by one-sided writes: the receiver maps the file that is to be, registers it and
// lends it; the sender writes straight into it and says when it is done. No byte is copied by
// either program, and the receiver's sleeps meanwhile.
//   file_copy serve --port PORT --out FILE      (port 0: one that is free)
//   file_copy send HOST:PORT FILE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "examples/check.h"
#include "examples/mapped_file.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example
using file_copy::MappedFile;

namespace {

// Private data on connect: this, then the file's size as 8 bytes, big-endian.
constexpr absl::string_view kMagic = "VFC1";
constexpr uint32_t kChunk = 1 << 20;     // bytes of one write
constexpr uint64_t kWindow = 16;         // writes in flight
constexpr uint64_t kPages = 16 << 20;    // bytes of a mapping to bring in at a time
constexpr uint64_t kAhead = 1ull << 30;  // bytes that the receiver brings in before they are needed

std::string EncodeSize(uint64_t size) {
  std::string bytes(kMagic);
  for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(size >> shift));
  return bytes;
}

absl::StatusOr<uint64_t> DecodeSize(absl::string_view bytes) {
  if (bytes.substr(0, 4) != kMagic || bytes.size() < 12) {
    return absl::InvalidArgumentError("the caller is not `file_copy send`");
  }
  uint64_t size = 0;
  for (char byte : bytes.substr(4, 8)) size = size << 8 | static_cast<uint8_t>(byte);
  return size;
}

// A stopwatch that tells what moved.
class Meter {
 public:
  std::string Report(uint64_t bytes) const {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return absl::StrCat(bytes, " bytes in ", seconds, " seconds, ",
                        static_cast<double>(bytes) / seconds / 1e9, " GB/s");
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A file of no bytes has no memory to register; one byte of ours stands in for it.
std::span<std::byte> MemoryOf(const MappedFile& file) {
  static std::byte nothing;
  return file.bytes().empty() ? std::span(&nothing, 1) : file.bytes();
}

// --- the receiving side -------------------------------------------------------------------------

// Lends `file` to the caller until it says that it is done, which is the only message.
absl::Status Receive(ConnectionRequest& request, const MappedFile& file) {
  auto pd = Check(request.device().AllocateProtectionDomain());
  auto cq = Check(request.device().CreateCompletionQueue());
  auto region = Check(pd.Register(MemoryOf(file), Access::kLocalWrite | Access::kRemoteWrite));
  auto qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  Check(qp.PostReceive(ReceiveWr{}));
  absl::Status status = request.Accept(qp, {.private_data = Encode(region.remote())});
  if (!status.ok()) return status;
  // The bytes come without us, so there is time to make room for them.
  for (uint64_t at = 0; at < kAhead; at += kPages) file.Populate(at, kPages);
  const WorkCompletion done = Check(cq.Wait(1)).front();
  // The sender leaves when it knows that we know.
  if (done.ok()) return qp.WaitUntilDisconnected(absl::Seconds(10));
  if (status = qp.cause(); status.ok())
    status = absl::UnavailableError("the sender left too early");
  return status;
}

int Serve(int port, const std::string& out) {
  auto context = Check(Context::Open());
  auto listener = Check(context.Listen(absl::StrCat(":", port)));
  printf("listening on port %d\n", listener.port());
  fflush(stdout);
  while (true) {
    auto request = Check(listener.Next());
    absl::StatusOr<uint64_t> size = DecodeSize(request.private_data());
    if (!size.ok()) {
      (void)request.Reject(std::string(size.status().message()));
      continue;  // a stranger; the file is still to come
    }
    // Under another name until it is complete.
    const std::string part = out + ".part";
    const Meter meter;
    absl::Status status;
    {
      auto file = MappedFile::Create(part, *size);
      if (!file.ok()) (void)request.Reject(std::string(file.status().message().substr(0, 140)));
      status = file.ok() ? Receive(request, *file) : file.status();
    }
    if (status.ok() && rename(part.c_str(), out.c_str()) != 0) {
      status =
          absl::InternalError(absl::StrCat("rename ", part, " to ", out, ": ", strerror(errno)));
    }
    if (!status.ok()) unlink(part.c_str());
    Check(status);
    printf("received %s\n", meter.Report(*size).c_str());
    return 0;
  }
}

// --- the sending side ---------------------------------------------------------------------------

void WriteAll(QueuePair& qp, CompletionQueue& cq, const MemoryRegion& region,
              const MappedFile& file, const RemoteBuffer& lent) {
  const uint64_t size = file.bytes().size();
  uint64_t in_flight = 0;
  for (uint64_t offset = 0; offset < size || in_flight > 0;) {
    if (offset < size && in_flight < kWindow) {
      if (offset % kPages == 0) file.Populate(offset, kPages);
      const auto length = static_cast<uint32_t>(std::min<uint64_t>(kChunk, size - offset));
      Check(qp.PostSend({.opcode = Opcode::kWrite,
                         .local = region.slice(offset, length),
                         .remote = lent.at(offset)}));
      offset += length;
      ++in_flight;
      continue;
    }
    const WorkCompletion wc = Check(cq.Wait(1)).front();
    if (!wc.ok()) Check(qp.cause());
    Check(wc.ToStatus());
    --in_flight;
  }
}

int Send(const std::string& address, const std::string& path) {
  auto file = Check(MappedFile::Open(path));
  const uint64_t size = file.bytes().size();
  auto context = Check(Context::Open());
  auto way = Check(context.Resolve(address));
  auto pd = Check(way.device().AllocateProtectionDomain());
  auto cq = Check(way.device().CreateCompletionQueue());
  auto region = Check(pd.Register(MemoryOf(file), Access::kLocalRead));
  auto qp = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  auto accepted = Check(way.Connect(qp, {.private_data = EncodeSize(size)}));
  auto lent = Check(Decode(accepted.private_data));

  printf("sending %zu bytes over %s\n", file.bytes().size(), Explain(qp.connection()).c_str());
  fflush(stdout);
  const Meter meter;
  WriteAll(qp, cq, region, file, lent);
  Check(qp.PostSend({.opcode = Opcode::kSend}));  // an empty message: done
  Check(Check(cq.Wait(1)).front().ToStatus());
  printf("sent %s\n", meter.Report(size).c_str());
  Check(qp.Disconnect());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<absl::string_view> words(argv + 1, argv + argc);
  int port = 0;
  if (words.size() == 5 && words[0] == "serve" && words[1] == "--port" && words[3] == "--out" &&
      absl::SimpleAtoi(words[2], &port)) {
    return Serve(port, std::string(words[4]));
  }
  if (words.size() == 3 && words[0] == "send") {
    return Send(std::string(words[1]), std::string(words[2]));
  }
  fprintf(stderr, "file_copy serve --port PORT --out FILE\nfile_copy send HOST:PORT FILE\n");
  return 2;
}
