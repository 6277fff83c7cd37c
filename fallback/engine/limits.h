// SPDX-License-Identifier: Apache-2.0
// Every number of the engine that somebody chose, with its unit and reason.
#pragma once

#include <cstddef>
#include <cstdint>

namespace verbena::engine {

inline constexpr uint32_t kMaxSge = 32;
inline constexpr uint32_t kMaxInline = 1024;           // bytes; programs hard-code 72 and more
inline constexpr uint32_t kMaxWorkRequests = 1 << 16;  // a queue
inline constexpr uint64_t kMaxMessage = 1ull << 31;    // bytes, IBTA 9.7.2
inline constexpr uint32_t kMaxDepth = 256;             // reads and atomics in flight, IRD and ORD

inline constexpr size_t kReceiveBuffer = 64 << 10;  // bytes a receive call at most, small messages
inline constexpr size_t kDirectPlacement = 4096;    // bytes left of a payload from which a receive
                                                    // call goes straight into the target
inline constexpr size_t kBehindDirect = 64;         // bytes that such a call takes besides, at most
inline constexpr size_t kLargePayload = 8192;       // bytes: the next is expected to be as large,
                                                    // and to be received in place
inline constexpr size_t kCopyLimit = 512;           // bytes: smaller payloads are copied next to
                                                    // their header, one buffer beats an iovec
inline constexpr size_t kBatchBytes = 1 << 20;      // gathered for one send call at most
inline constexpr size_t kBatchArena = 64 << 10;     // bytes of headers, trailers, small payloads
inline constexpr size_t kLargestUlpdu = 64 << 10;   // bytes, more than any FPDU carries
inline constexpr uint32_t kLargestMss = 65532;      // bytes: an FPDU's length has 16 bits
inline constexpr int kBatchVectors = 128;           // iovecs of one send call

inline constexpr size_t kPublishBytes = 8;  // the tail of a write that is stored last and at once

inline constexpr uint32_t kAckEveryRequests = 128;     // an acknowledgement goes alone after so
inline constexpr uint64_t kAckEveryBytes = 512 << 10;  // many requests or bytes
inline constexpr uint32_t kConfirmEveryRequests = 32;  // plain peers: a read that stands in for
                                                       // acknowledgements goes at least so often
inline constexpr int kResponsesPerRequest = 4;         // FPDUs of read responses between requests,
                                                       // so that neither side starves

}  // namespace verbena::engine
