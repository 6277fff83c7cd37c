// SPDX-License-Identifier: Apache-2.0
// What becomes of each opcode with each set of flags, worked out beforehand, and how a request is
// put into the driver's words. On the hot path; nothing here allocates, waits or checks.
#pragma once

#include <arpa/inet.h>
#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "transport/capabilities.h"
#include "transport/memory.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"
#include "verbs/ledger.h"

namespace verbena::verbs {

// An entry of ours is one of the driver's, byte for byte: the driver gets the caller's.
static_assert(sizeof(Sge) == sizeof(ibv_sge) && offsetof(Sge, address) == offsetof(ibv_sge, addr) &&
              offsetof(Sge, length) == offsetof(ibv_sge, length) &&
              offsetof(Sge, key) == offsetof(ibv_sge, lkey));
inline ibv_sge* AsTheDrivers(const Sge* entries) {
  return reinterpret_cast<ibv_sge*>(const_cast<Sge*>(entries));
}

constexpr bool TakesInline(Opcode opcode) {
  return opcode <= Opcode::kSendWithInvalidate || opcode == Opcode::kWrite ||
         opcode == Opcode::kWriteWithImm;
}

constexpr bool IsAtomic(Opcode opcode) {
  return opcode == Opcode::kCompareSwap || opcode == Opcode::kFetchAdd;
}

constexpr bool Supported(Opcode opcode, const Capabilities& can) {
  switch (opcode) {
    case Opcode::kSendWithImm:
    case Opcode::kWriteWithImm:
      return can.immediate;
    case Opcode::kSendWithInvalidate:
      return can.send_with_invalidate;
    case Opcode::kCompareSwap:
    case Opcode::kFetchAdd:
      return can.atomics;
    case Opcode::kLocalInvalidate:
    case Opcode::kBindWindow:
      return can.memory_windows;
    default:
      return true;
  }
}

// What unreliable connections have, too (IBTA 9.4: no reads, no atomics, no Send with Invalidate).
constexpr bool UnreliableToo(Opcode opcode) {
  return opcode != Opcode::kRead && opcode != Opcode::kSendWithInvalidate && !IsAtomic(opcode);
}

struct Form {
  static constexpr uint64_t kNoLength = ~uint64_t{0};  // no entry's

  Facts facts;
  // What may take the short ways of hot_path.cc: a request with one entry of fewer bytes; one with
  // two entries whose sum is below `other`, and an atomic with one entry of so many bytes.
  uint32_t fewer = 0;
  uint64_t other = 0;
  alignas(16) int num_sge = 1;  // as in ibv_send_wr from here on
  ibv_wr_opcode opcode;
  unsigned send_flags;
  uint32_t none;
};
// These lie beside each other, and are copied sixteen bytes at a time.
static_assert(offsetof(Form, opcode) == offsetof(Form, num_sge) + 4 &&
              offsetof(Form, send_flags) == offsetof(Form, num_sge) + 8 &&
              offsetof(ibv_send_wr, opcode) == offsetof(ibv_send_wr, num_sge) + 4 &&
              offsetof(ibv_send_wr, send_flags) == offsetof(ibv_send_wr, num_sge) + 8);
static_assert(sizeof(RemoteAddress) == 16 && offsetof(RemoteAddress, key) == 8 &&
              offsetof(ibv_send_wr, wr.rdma.rkey) == offsetof(ibv_send_wr, wr.rdma) + 8);
static_assert(offsetof(SendWr, id) == offsetof(SendWr, remote) + 16 &&
              offsetof(Ledger::Place, id) == offsetof(Ledger::Place, key_or_next) + 8);
static_assert(sizeof(AtomicOperands) == 16 && offsetof(AtomicOperands, swap) == 8 &&
              offsetof(ibv_send_wr, wr.atomic.swap) ==
                  offsetof(ibv_send_wr, wr.atomic.compare_add) + 8);

// Tables go by flags and then by opcode: of the first eight, so that one instruction makes the
// index, and behind that of the others.
inline constexpr size_t kFlagSets = 16;  // SendFlags
inline constexpr size_t kRow = 8;
inline constexpr size_t kPlainForms = kFlagSets * kRow;
inline constexpr size_t kForms = 2 * kPlainForms;
static_assert(kOpcodeCount <= 2 * kRow && static_cast<size_t>(Opcode::kFetchAdd) < kRow);

constexpr size_t PlainForm(Opcode opcode, SendFlags flags) {
  return static_cast<uint8_t>(flags) % kFlagSets * kRow + static_cast<uint8_t>(opcode);
}
// Of an opcode that is one.
inline size_t WhichForm(const SendWr& wr) {
  const size_t opcode = static_cast<uint8_t>(wr.opcode);
  return opcode / kRow * kPlainForms + PlainForm(static_cast<Opcode>(opcode % kRow), wr.flags);
}
constexpr Opcode OpcodeOf(size_t form) {
  return static_cast<Opcode>(form / kPlainForms * kRow + form % kRow);
}
constexpr SendFlags FlagsOf(size_t form) { return static_cast<SendFlags>(form / kRow % kFlagSets); }

constexpr Form FormOf(Opcode opcode, SendFlags flags) {
  constexpr ibv_wr_opcode kOpcodes[kOpcodeCount] = {
      IBV_WR_SEND,
      IBV_WR_SEND_WITH_IMM,
      IBV_WR_SEND_WITH_INV,
      IBV_WR_RDMA_WRITE,
      IBV_WR_RDMA_WRITE_WITH_IMM,
      IBV_WR_RDMA_READ,
      IBV_WR_ATOMIC_CMP_AND_SWP,
      IBV_WR_ATOMIC_FETCH_AND_ADD,
      IBV_WR_LOCAL_INV,
      IBV_WR_BIND_MW,
  };
  Form form{};
  form.facts = {.completes = CompletionOf(opcode),
                .quiet = !Has(flags, SendFlags::kSignaled),
                .state = opcode == Opcode::kBindWindow ? Ledger::kOdd : uint8_t{0}};
  if (IsAtomic(opcode)) form.other = Form::kNoLength;
  form.opcode = kOpcodes[static_cast<uint8_t>(opcode)];
  // Verbs flags have the same order, and other places.
  form.send_flags = (Has(flags, SendFlags::kSignaled) ? unsigned{IBV_SEND_SIGNALED} : 0) |
                    (Has(flags, SendFlags::kSolicited) ? unsigned{IBV_SEND_SOLICITED} : 0) |
                    (Has(flags, SendFlags::kFence) ? unsigned{IBV_SEND_FENCE} : 0) |
                    (Has(flags, SendFlags::kInline) ? unsigned{IBV_SEND_INLINE} : 0);
  return form;
}

// By WhichForm, with no short way open. kSignaled or not: always so in a queue pair that signals
// all.
constexpr std::array<Form, kForms> FormsWith(SendFlags always) {
  std::array<Form, kForms> forms{};
  for (size_t i = 0; i < kForms; ++i) {
    if (static_cast<int>(OpcodeOf(i)) < kOpcodeCount) {
      forms[i] = FormOf(OpcodeOf(i), FlagsOf(i) | always);
    }
  }
  return forms;
}
inline constexpr std::array<Form, kForms> kAsAsked = FormsWith(SendFlags::kNone);
inline constexpr std::array<Form, kForms> kAllSignaled = FormsWith(SendFlags::kSignaled);

inline void FillPlace(const SendWr& wr, const Form& form, Ledger::Place* place) {
  std::memcpy(&place->key_or_next, &wr.remote.key, 16);
  place->Know(form.facts);
}

// What differs from one request to the next, but for its entry.
inline void FillWork(const SendWr& wr, const Form& form, uint64_t name, ibv_send_wr* work) {
  work->wr_id = name;
  std::memcpy(&work->num_sge, &form.num_sge, 16);
  std::memcpy(&work->wr.rdma, &wr.remote, 16);
}

// A send, write or read with one entry; the rest of `work` belongs to other opcodes.
inline void Fill(const SendWr& wr, const Form& form, uint64_t name, Ledger::Place* place,
                 ibv_send_wr* work, ibv_send_wr* next = nullptr) {
  FillPlace(wr, form, place);
  FillWork(wr, form, name, work);
  work->next = next;
  work->sg_list = AsTheDrivers(&wr.local.one());
  work->imm_data = htonl(wr.immediate);
}

// A send, write or read without immediate data, with two entries.
inline void FillTwo(const SendWr& wr, const Sge* two, const Form& form, uint64_t name,
                    Ledger::Place* place, ibv_send_wr* work) {
  FillPlace(wr, form, place);
  FillWork(wr, form, name, work);
  work->next = nullptr;
  work->sg_list = AsTheDrivers(two);
  work->num_sge = 2;
}

// A compare-and-swap or fetch-and-add with one entry.
inline void FillAtomic(const SendWr& wr, const Form& form, uint64_t name, Ledger::Place* place,
                       ibv_send_wr* work) {
  FillPlace(wr, form, place);
  work->wr_id = name;
  work->next = nullptr;
  work->sg_list = AsTheDrivers(&wr.local.one());
  std::memcpy(&work->num_sge, &form.num_sge, 16);
  work->wr.atomic.remote_addr = wr.remote.address;
  std::memcpy(&work->wr.atomic.compare_add, &wr.atomic, 16);
  work->wr.atomic.rkey = wr.remote.key;
}

// What any other has besides.
inline void FillMore(const SendWr& wr, ibv_send_wr* work) {
  work->sg_list = AsTheDrivers(wr.local.begin());
  work->num_sge = static_cast<int>(wr.local.size());
  if (IsAtomic(wr.opcode)) {
    work->wr.atomic.rkey = wr.remote.key;
    std::memcpy(&work->wr.atomic.compare_add, &wr.atomic, 16);
  } else if (wr.opcode == Opcode::kSendWithInvalidate || wr.opcode == Opcode::kLocalInvalidate) {
    work->invalidate_rkey = wr.invalidate;
  }
}

// By themselves, for a request that is not one of a batch.
inline void FillOne(const SendWr& wr, const Form& form, uint64_t name, Ledger::Place* place,
                    ibv_send_wr* work) {
  Fill(wr, form, name, place, work);
}
inline void FillAny(const SendWr& wr, const Form& form, uint64_t name, Ledger::Place* place,
                    ibv_send_wr* work) {
  Fill(wr, form, name, place, work);
  FillMore(wr, work);
}

inline uint64_t LengthOf(const SgeList& entries) {
  uint64_t length = 0;
  for (const Sge& entry : entries) length += entry.length;
  return length;
}

inline void FillReceive(const ReceiveWr& wr, uint64_t name, ibv_recv_wr* work) {
  *work = {.wr_id = name,
           .next = nullptr,
           .sg_list = AsTheDrivers(wr.local.begin()),
           .num_sge = static_cast<int>(wr.local.size())};
}

// How many of `count` linked requests were taken, from what the driver answered. A driver that
// fails without naming a request has queued all and failed to ring its doorbell.
template <typename Wr>
uint32_t Taken(int error, const Wr* first, const Wr* bad, uint32_t count) {
  return error == 0 || bad == nullptr ? count : static_cast<uint32_t>(bad - first);
}

}  // namespace verbena::verbs
