// SPDX-License-Identifier: Apache-2.0
// One end of a connection for bad_use.cc: everything that a queue pair needs, on the device of that
// name, connected without a connection manager.
#pragma once

#include <infiniband/verbs.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace verbena::bad_use {

constexpr uint32_t kMemory = 4096;
constexpr int kInitMask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
constexpr int kRtrMask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                         IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
constexpr int kRtsMask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                         IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

std::string ErrorName(int error);  // "0", "EINVAL"
std::string StatusName(ibv_wc_status status);

// What the other end has to know.
struct EndName {
  ibv_gid gid;
  uint64_t address;
  uint32_t qp_number;
  uint32_t rkey;
};

class End {
 public:
  End(const char* device, int gid_index);  // ends the program if there is no such device
  ~End();
  End(const End&) = delete;

  EndName Name() const;
  bool Init();
  bool Connect(const EndName& peer);  // to RTS; from RESET or INIT
  ibv_qp_attr InitAttr() const;
  ibv_qp_attr RtrAttr(const EndName& peer) const;
  ibv_qp_attr RtsAttr() const;
  std::string State() const;

  ibv_qp* NewQueuePair();
  void Register(int access);  // its memory, in place of the former region
  uint64_t At(size_t offset) const { return reinterpret_cast<uint64_t>(memory.data() + offset); }
  ibv_sge Sge(size_t offset, uint32_t length) const { return {At(offset), length, mr->lkey}; }
  int PostReceive(uint64_t id, size_t offset, uint32_t length);
  int PostSend(uint64_t id, size_t offset, uint32_t length);
  int Post(ibv_wr_opcode opcode, uint64_t id, uint32_t length, uint64_t address, uint32_t rkey,
           uint32_t lkey = 0);
  int Post(ibv_sge* list, int count, unsigned flags, ibv_wr_opcode opcode);
  int Poll(ibv_wc* wc);
  // Up to `most` completions; fewer if the next one does not come within `wait_ms`.
  std::vector<ibv_wc> Wait(int most, int wait_ms);
  void Abandon() { abandoned_ = true; }  // nothing is closed

  ibv_context* context = nullptr;
  ibv_pd* pd = nullptr;
  ibv_cq* cq = nullptr;
  ibv_qp* qp = nullptr;
  ibv_mr* mr = nullptr;
  ibv_qp_cap cap{};
  alignas(64) std::array<char, kMemory> memory{};

 private:
  const int gid_index_;
  bool abandoned_ = false;
};

// This program once more, as the other end.
class PeerProcess {
 public:
  PeerProcess(const std::string& what, const char* device, int gid_index);
  EndName Meet(const EndName& mine);
  void Proceed();
  int Wait();  // its exit status, or 128 and the signal

 private:
  int pid_ = 0;
  int to_ = -1, from_ = -1;
};

EndName ReadName(int fd);
void WriteName(int fd, const EndName& name);
void ReadByte(int fd);

}  // namespace verbena::bad_use
