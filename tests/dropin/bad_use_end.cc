// SPDX-License-Identifier: Apache-2.0
#include "tests/dropin/bad_use_end.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace verbena::bad_use {
namespace {

constexpr int kEverything = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                            IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
constexpr ibv_qp_cap kCap = {.max_send_wr = 16,
                             .max_recv_wr = 16,
                             .max_send_sge = 2,
                             .max_recv_sge = 2,
                             .max_inline_data = 64};

[[noreturn]] void Give(const std::string& what) {
  std::fprintf(stderr, "bad_use: %s: %s\n", what.c_str(), std::strerror(errno));
  std::_Exit(99);
}

void WriteAll(int fd, const void* from, size_t size) {
  if (write(fd, from, size) != static_cast<ssize_t>(size)) Give("write");
}

void ReadAll(int fd, void* to, size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t n = read(fd, at, size);
    if (n <= 0) Give("the other process ended");
    at += n;
    size -= static_cast<size_t>(n);
  }
}

}  // namespace

std::string ErrorName(int error) {
  if (error == 0) return "0";
  const char* const name = strerrorname_np(error < 0 ? -error : error);
  return (error < 0 ? "-" : "") + std::string(name != nullptr ? name : "unknown");
}

std::string StatusName(ibv_wc_status status) {
  constexpr std::array kNames = {
      "SUCCESS",        "LOC_LEN_ERR", "LOC_QP_OP_ERR", "LOC_EEC_OP_ERR",   "LOC_PROT_ERR",
      "WR_FLUSH_ERR",   "MW_BIND_ERR", "BAD_RESP_ERR",  "LOC_ACCESS_ERR",   "REM_INV_REQ_ERR",
      "REM_ACCESS_ERR", "REM_OP_ERR",  "RETRY_EXC_ERR", "RNR_RETRY_EXC_ERR"};
  return status < kNames.size() ? kNames[status] : std::to_string(status);
}

End::End(const char* device, int gid_index) : gid_index_(gid_index) {
  int count = 0;
  ibv_device** const list = ibv_get_device_list(&count);
  for (int i = 0; i < count && context == nullptr; ++i) {
    if (device == nullptr || std::strcmp(ibv_get_device_name(list[i]), device) == 0) {
      context = ibv_open_device(list[i]);
    }
  }
  if (context == nullptr) Give("no such device");
  ibv_free_device_list(list);
  pd = ibv_alloc_pd(context);
  cq = ibv_create_cq(context, 64, nullptr, nullptr, 0);
  Register(kEverything);
  qp = NewQueuePair();
  if (pd == nullptr || cq == nullptr || mr == nullptr || qp == nullptr) Give("an object");
}

End::~End() {
  if (abandoned_) return;
  if (qp != nullptr) ibv_destroy_qp(qp);
  if (mr != nullptr) ibv_dereg_mr(mr);
  ibv_destroy_cq(cq);
  ibv_dealloc_pd(pd);
  ibv_close_device(context);
}

ibv_qp* End::NewQueuePair() {
  ibv_qp_init_attr attr{};
  attr.send_cq = attr.recv_cq = cq;
  attr.cap = kCap;
  attr.qp_type = IBV_QPT_RC;
  attr.sq_sig_all = 1;
  ibv_qp* const made = ibv_create_qp(pd, &attr);
  cap = attr.cap;
  return made;
}

void End::Register(int access) {
  if (mr != nullptr) ibv_dereg_mr(mr);
  mr = ibv_reg_mr(pd, memory.data(), memory.size(), access);
}

EndName End::Name() const {
  EndName name{};
  ibv_query_gid(context, 1, gid_index_, &name.gid);
  name.address = At(0);
  name.qp_number = qp->qp_num;
  name.rkey = mr->rkey;
  return name;
}

ibv_qp_attr End::InitAttr() const {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  attr.qp_access_flags = kEverything;
  return attr;
}

ibv_qp_attr End::RtrAttr(const EndName& peer) const {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = IBV_MTU_1024;
  attr.dest_qp_num = peer.qp_number;
  attr.max_dest_rd_atomic = 4;
  attr.min_rnr_timer = 12;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = 1;
  attr.ah_attr.grh.dgid = peer.gid;
  attr.ah_attr.grh.sgid_index = static_cast<uint8_t>(gid_index_);
  attr.ah_attr.grh.hop_limit = 64;
  return attr;
}

ibv_qp_attr End::RtsAttr() const {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = 14;
  attr.retry_cnt = 3;
  attr.rnr_retry = 0;
  attr.max_rd_atomic = 4;
  return attr;
}

bool End::Init() {
  ibv_qp_attr attr = InitAttr();
  return ibv_modify_qp(qp, &attr, kInitMask) == 0;
}

bool End::Connect(const EndName& peer) {
  if (qp->state == IBV_QPS_RESET && !Init()) return false;
  ibv_qp_attr attr = RtrAttr(peer);
  if (ibv_modify_qp(qp, &attr, kRtrMask) != 0) return false;
  attr = RtsAttr();
  return ibv_modify_qp(qp, &attr, kRtsMask) == 0;
}

std::string End::State() const {
  constexpr std::array kNames = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  if (ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) != 0) return "unknown";
  return attr.qp_state < kNames.size() ? kNames[attr.qp_state] : "unknown";
}

int End::PostReceive(uint64_t id, size_t offset, uint32_t length) {
  ibv_sge sge = Sge(offset, length);
  ibv_recv_wr wr{};
  wr.wr_id = id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp, &wr, &bad);
}

int End::PostSend(uint64_t id, size_t offset, uint32_t length) {
  ibv_sge sge = Sge(offset, length);
  ibv_send_wr wr{};
  wr.wr_id = id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

int End::Post(ibv_wr_opcode opcode, uint64_t id, uint32_t length, uint64_t address, uint32_t rkey,
              uint32_t lkey) {
  ibv_sge sge{At(0), length, mr != nullptr ? mr->lkey : lkey};
  ibv_send_wr wr{};
  wr.wr_id = id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    wr.wr.atomic.remote_addr = address;
    wr.wr.atomic.rkey = rkey;
  } else {
    wr.wr.rdma.remote_addr = address;
    wr.wr.rdma.rkey = rkey;
  }
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

int End::Post(ibv_sge* list, int count, unsigned flags, ibv_wr_opcode opcode) {
  ibv_send_wr wr{};
  wr.sg_list = list;
  wr.num_sge = count;
  wr.send_flags = flags;
  wr.opcode = opcode;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp, &wr, &bad);
}

int End::Poll(ibv_wc* wc) {
  ibv_wc none;
  return ibv_poll_cq(cq, 1, wc != nullptr ? wc : &none);
}

std::vector<ibv_wc> End::Wait(int most, int wait_ms) {
  using Clock = std::chrono::steady_clock;
  std::vector<ibv_wc> all;
  auto end = Clock::now() + std::chrono::milliseconds(wait_ms);
  while (static_cast<int>(all.size()) < most && Clock::now() < end) {
    ibv_wc wc{};
    if (Poll(&wc) <= 0) continue;
    all.push_back(wc);
    end = Clock::now() + std::chrono::milliseconds(wait_ms);
  }
  return all;
}

PeerProcess::PeerProcess(const std::string& what, const char* device, int gid_index) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) Give("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, there[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, back[1], STDOUT_FILENO);
  for (const int fd : {there[0], there[1], back[0], back[1]}) {
    posix_spawn_file_actions_addclose(&actions, fd);
  }
  std::string program = "bad_use", name = device != nullptr ? device : "";
  std::string index = std::to_string(gid_index), end = what;
  char* const arguments[] = {program.data(), name.data(), index.data(), end.data(), nullptr};
  if (posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, arguments, environ) != 0) {
    Give("posix_spawn");
  }
  posix_spawn_file_actions_destroy(&actions);
  close(there[0]);
  close(back[1]);
  to_ = there[1];
  from_ = back[0];
}

EndName PeerProcess::Meet(const EndName& mine) {
  WriteName(to_, mine);
  return ReadName(from_);
}

void PeerProcess::Proceed() { WriteAll(to_, "x", 1); }

int PeerProcess::Wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  close(to_);
  close(from_);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

EndName ReadName(int fd) {
  EndName name;
  ReadAll(fd, &name, sizeof name);
  return name;
}

void WriteName(int fd, const EndName& name) { WriteAll(fd, &name, sizeof name); }

void ReadByte(int fd) {
  char byte;
  ReadAll(fd, &byte, 1);
}

}  // namespace verbena::bad_use
