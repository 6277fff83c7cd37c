// SPDX-License-Identifier: Apache-2.0
// What a device answers to programs that use it badly: `bad_use [DEVICE [GID_INDEX]]` prints a
// table of {step, answer}, the same lines in the same order on any device. So what the drop-in
// libraries answer (tests/dropin/bad_use_test) can be compared with what Soft-RoCE answers.
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/dropin/bad_use_end.h"

using namespace verbena::bad_use;  // NOLINT: one program in two files

namespace {

const char* device_name = nullptr;
int gid_index = 0;

void Row(const std::string& step, const std::string& answer) {
  std::printf("%-58s %s\n", step.c_str(), answer.c_str());
  std::fflush(stdout);
}
void Row(const std::string& step, int error) { Row(step, ErrorName(error)); }
// Of calls that answer a pointer.
template <typename T>
T* RowOf(const std::string& step, T* made) {
  Row(step, made != nullptr ? std::string("made") : ErrorName(errno));
  return made;
}

End NewEnd() { return End(device_name, gid_index); }

// Statuses of the next completions of both ends, until nothing comes for a while.
std::string Completions(End* end, int most, int wait_ms = 3000) {
  std::string out;
  for (const ibv_wc& wc : end->Wait(most, wait_ms)) {
    out += (out.empty() ? "" : " ") + std::to_string(wc.wr_id) + ":" + StatusName(wc.status);
  }
  return out.empty() ? "none" : out;
}

void Limits() {
  End e = NewEnd();
  ibv_device_attr limits{};
  ibv_query_device(e.context, &limits);
  RowOf("ibv_create_cq: no entries", ibv_create_cq(e.context, 0, nullptr, nullptr, 0));
  RowOf("ibv_create_cq: more entries than max_cqe",
        ibv_create_cq(e.context, limits.max_cqe + 1, nullptr, nullptr, 0));
  RowOf("ibv_create_cq: a vector that is none",
        ibv_create_cq(e.context, 1, nullptr, nullptr, e.context->num_comp_vectors));
  const auto create = [&](const std::string& step,
                          const std::function<void(ibv_qp_init_attr*)>& f) {
    ibv_qp_init_attr attr{};
    attr.send_cq = attr.recv_cq = e.cq;
    attr.cap = {.max_send_wr = 1,
                .max_recv_wr = 1,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    attr.qp_type = IBV_QPT_RC;
    f(&attr);
    if (ibv_qp* const qp = RowOf("ibv_create_qp: " + step, ibv_create_qp(e.pd, &attr))) {
      ibv_destroy_qp(qp);
    }
  };
  create("max_qp_wr + 1 sends", [&](auto* a) { a->cap.max_send_wr = limits.max_qp_wr + 1; });
  create("max_qp_wr + 1 receives", [&](auto* a) { a->cap.max_recv_wr = limits.max_qp_wr + 1; });
  create("max_sge + 1 entries", [&](auto* a) { a->cap.max_send_sge = limits.max_sge + 1; });
  create("a megabyte inline", [](auto* a) { a->cap.max_inline_data = 1 << 20; });
  create("a type that is none", [](auto* a) { a->qp_type = static_cast<ibv_qp_type>(77); });
  RowOf("ibv_reg_mr: remote write without local write",
        ibv_reg_mr(e.pd, e.memory.data(), 64, IBV_ACCESS_REMOTE_WRITE));
  RowOf("ibv_reg_mr: no bytes", ibv_reg_mr(e.pd, e.memory.data(), 0, IBV_ACCESS_LOCAL_WRITE));
  void* const gone = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  RowOf("ibv_reg_mr: for writing, what is mapped for reading",
        ibv_reg_mr(e.pd, gone, 4096, IBV_ACCESS_LOCAL_WRITE));
  munmap(gone, 4096);
  RowOf("ibv_reg_mr: what is not mapped", ibv_reg_mr(e.pd, gone, 4096, IBV_ACCESS_LOCAL_WRITE));
}

void InUse() {
  End e = NewEnd();
  Row("ibv_dealloc_pd: with a region", ibv_dealloc_pd(e.pd));
  Row("ibv_destroy_cq: with a queue pair", ibv_destroy_cq(e.cq));
  ibv_comp_channel* const channel = ibv_create_comp_channel(e.context);
  ibv_cq* const cq = ibv_create_cq(e.context, 1, nullptr, channel, 0);
  Row("ibv_destroy_comp_channel: with a completion queue", ibv_destroy_comp_channel(channel));
  ibv_destroy_cq(cq);
  ibv_destroy_comp_channel(channel);
  Row("ibv_dereg_mr: with a queue pair that may use it", ibv_dereg_mr(e.mr));
  e.mr = nullptr;
  Row("ibv_poll_cq: an empty queue", std::to_string(e.Poll(nullptr)));
}

void WrongStates() {
  End e = NewEnd();
  const auto both = [&](const std::string& state) {
    Row("ibv_post_recv: in " + state, e.PostReceive(1, 0, 8));
    Row("ibv_post_send: in " + state, e.PostSend(2, 0, 8));
  };
  both("RESET");
  ibv_qp_attr attr = e.RtrAttr(e.Name());
  Row("ibv_modify_qp: RESET to RTR", ibv_modify_qp(e.qp, &attr, kRtrMask));
  attr = e.RtsAttr();
  Row("ibv_modify_qp: RESET to RTS", ibv_modify_qp(e.qp, &attr, kRtsMask));
  attr = e.InitAttr();
  Row("ibv_modify_qp: to INIT without a port",
      ibv_modify_qp(e.qp, &attr, kInitMask & ~IBV_QP_PORT));
  attr.port_num = 9;
  Row("ibv_modify_qp: to INIT with port 9", ibv_modify_qp(e.qp, &attr, kInitMask));
  attr = e.InitAttr();
  attr.pkey_index = 999;
  Row("ibv_modify_qp: to INIT with P_Key index 999", ibv_modify_qp(e.qp, &attr, kInitMask));
  attr = e.InitAttr();
  attr.cur_qp_state = IBV_QPS_RTS;
  Row("ibv_modify_qp: to INIT from what it is not",
      ibv_modify_qp(e.qp, &attr, kInitMask | IBV_QP_CUR_STATE));
  attr = e.InitAttr();
  Row("ibv_modify_qp: RESET to INIT", ibv_modify_qp(e.qp, &attr, kInitMask));
  both("INIT");
  attr = e.RtsAttr();
  Row("ibv_modify_qp: INIT to RTS", ibv_modify_qp(e.qp, &attr, kRtsMask));
  attr = e.RtrAttr(e.Name());
  attr.ah_attr.grh.sgid_index = 250;
  Row("ibv_modify_qp: to RTR with GID index 250", ibv_modify_qp(e.qp, &attr, kRtrMask));
  attr = {};
  attr.qp_state = IBV_QPS_ERR;
  Row("ibv_modify_qp: INIT to ERR", ibv_modify_qp(e.qp, &attr, IBV_QP_STATE));
  Row("completions then", Completions(&e, 1));
  both("ERR");
  Row("completions then", Completions(&e, 2));
  attr.qp_state = IBV_QPS_RESET;
  Row("ibv_modify_qp: ERR to RESET", ibv_modify_qp(e.qp, &attr, IBV_QP_STATE));
}

// Two ends of one process, connected; `use` by one, with what the other has.
void Between(const std::string& step, const std::function<int(End*, End*)>& use, int most = 2) {
  End a = NewEnd(), b = NewEnd();
  if (!a.Connect(b.Name()) || !b.Connect(a.Name())) return Row(step, "not connected");
  const int error = use(&a, &b);
  Row(step, error == 0 ? "posted" : ErrorName(error));
  if (error != 0) return;
  Row("  its completions", Completions(&a, most));
  Row("  the peer's", Completions(&b, 1, 300));
  Row("  states", a.State() + " " + b.State());
}

void Refusals() {
  Between("a write to a key that is none", [](End* a, End* b) {
    return a->Post(IBV_WR_RDMA_WRITE, 1, 8, b->At(0), b->mr->rkey ^ 0x5a5a5a00) +
           a->PostSend(2, 0, 8);
  });
  Between(
      "a write beyond the end of a region",
      [](End* a, End* b) {
        return a->Post(IBV_WR_RDMA_WRITE, 1, 8, b->At(kMemory - 4), b->mr->rkey);
      },
      1);
  Between(
      "a write to a region that was deregistered",
      [](End* a, End* b) {
        const uint32_t key = b->mr->rkey;
        ibv_dereg_mr(b->mr);
        b->mr = nullptr;
        return a->Post(IBV_WR_RDMA_WRITE, 1, 8, b->At(0), key);
      },
      1);
  Between(
      "a write to a region for reading",
      [](End* a, End* b) {
        b->Register(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
        return a->Post(IBV_WR_RDMA_WRITE, 1, 8, b->At(0), b->mr->rkey);
      },
      1);
  Between(
      "a read of a region for writing",
      [](End* a, End* b) {
        b->Register(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        return a->Post(IBV_WR_RDMA_READ, 1, 8, b->At(0), b->mr->rkey);
      },
      1);
  Between(
      "an atomic that is not aligned",
      [](End* a, End* b) {
        return a->Post(IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 8, b->At(4), b->mr->rkey);
      },
      1);
  Between(
      "a send of memory that was deregistered",
      [](End* a, End* b) {
        b->PostReceive(9, 0, 8);
        const uint32_t key = a->mr->lkey;
        ibv_dereg_mr(a->mr);
        a->mr = nullptr;
        return a->Post(IBV_WR_SEND, 1, 8, 0, 0, key);
      },
      1);
  Between(
      "a send that is longer than the receive",
      [](End* a, End* b) {
        b->PostReceive(9, 0, 8);
        return a->PostSend(1, 0, 16);
      },
      1);
  Between(
      "a send into memory that was deregistered",
      [](End* a, End* b) {
        b->PostReceive(9, 0, 8);
        ibv_dereg_mr(b->mr);
        b->mr = nullptr;
        return a->PostSend(1, 0, 8);
      },
      1);
  Between(
      "a send for which there is no receive, rnr_retry 0",
      [](End* a, End*) { return a->PostSend(1, 0, 8); }, 1);
}

// What is refused when it is posted.
void Posts() {
  Between("more entries than max_send_sge", [](End* a, End*) {
    ibv_sge list[3] = {a->Sge(0, 8), a->Sge(8, 8), a->Sge(16, 8)};
    return a->Post(list, 3, 0, IBV_WR_SEND);
  });
  Between("more inline than max_inline_data", [](End* a, End*) {
    ibv_sge one = a->Sge(0, kMemory);
    return a->Post(&one, 1, IBV_SEND_INLINE, IBV_WR_SEND);
  });
  Between("an opcode that is none", [](End* a, End*) {
    ibv_sge one = a->Sge(0, 8);
    return a->Post(&one, 1, 0, static_cast<ibv_wr_opcode>(99));
  });
  Between("more sends than max_send_wr", [](End* a, End*) {
    int error = 0;
    for (uint32_t i = 0; i <= a->cap.max_send_wr && error == 0; ++i) error = a->PostSend(i, 0, 8);
    return error;
  });
  Between("more receives than max_recv_wr", [](End* a, End*) {
    int error = 0;
    for (uint32_t i = 0; i <= a->cap.max_recv_wr && error == 0; ++i) {
      error = a->PostReceive(i, 0, 8);
    }
    return error;
  });
}

// A child that ends at once, in each phase; and one that opens the device anew.
void Forks() {
  const auto child = [](const std::function<int()>& f) {
    const pid_t pid = fork();
    if (pid == 0) _exit(f());
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  };
  const auto nothing = [] { return 0; };
  Row("ibv_fork_init", ibv_fork_init());
  Row("fork before a device is open", std::to_string(child([] {
        End own = NewEnd();
        return own.qp != nullptr ? 0 : 1;
      })));
  End a = NewEnd(), b = NewEnd();
  Row("fork with objects", std::to_string(child(nothing)));
  const bool connected = a.Connect(b.Name()) && b.Connect(a.Name());
  Row("  connecting after it", connected ? "works" : "fails");
  b.PostReceive(1, 0, 8);
  Row("fork with a receive posted", std::to_string(child(nothing)));
  a.PostSend(2, 0, 8);
  Row("  a message after it", Completions(&a, 1) + ", " + Completions(&b, 1));
  b.PostReceive(3, 0, 8);
  a.PostSend(4, 0, 8);
  Row("fork with a message under way", std::to_string(child(nothing)));
  Row("  the message", Completions(&a, 1) + ", " + Completions(&b, 1));
  Row("fork, and the child opens the device", std::to_string(child([] {
        End own = NewEnd();
        return own.qp != nullptr ? 0 : 1;
      })));
}

void Loading() {
  void* const library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  void* const found =
      library == nullptr ? nullptr : dlvsym(library, "ibv_open_device", "IBVERBS_1.1");
  Row("dlopen, dlvsym: the function that the program is linked with",
      found == reinterpret_cast<void*>(&ibv_open_device) ? "yes" : "no");
  void* const manager = dlopen("librdmacm.so.1", RTLD_NOW | RTLD_LOCAL);
  Row("dlopen of librdmacm beside it", manager != nullptr ? "yes" : "no");
  End e = NewEnd();
  int count = 0;
  ibv_context** const all = rdma_get_devices(&count);
  bool same = false;
  for (int i = 0; i < count; ++i) {
    same = same || std::strcmp(ibv_get_device_name(all[i]->device),
                               ibv_get_device_name(e.context->device)) == 0;
  }
  Row("librdmacm has the devices of libibverbs", same ? "yes" : "no");
  rdma_free_devices(all);
  rdma_cm_id* id = nullptr;
  Row("rdma_create_id", rdma_create_id(nullptr, &id, nullptr, RDMA_PS_TCP) == 0 ? 0 : errno);
  Row("rdma_listen before rdma_bind_addr", rdma_listen(id, 1) == 0 ? 0 : errno);
  Row("rdma_connect before rdma_resolve_addr", rdma_connect(id, nullptr) == 0 ? 0 : errno);
  // librdmacm 44 ends with SIGSEGV there (ucma_modify_qp_rtr of no queue pair).
  const bool stock = std::strncmp(ibv_get_device_name(e.context->device), "tcp_", 4) != 0;
  if (!stock) Row("rdma_accept without a request", rdma_accept(id, nullptr) == 0 ? 0 : errno);
  Row("rdma_disconnect without a connection", rdma_disconnect(id) == 0 ? 0 : errno);
  Row("rdma_destroy_id", rdma_destroy_id(id) == 0 ? 0 : errno);
}

void Many() {
  End e = NewEnd();
  std::vector<ibv_qp*> all;
  for (int i = 0; i < 1000; ++i) {
    if (ibv_qp* const qp = e.NewQueuePair()) all.push_back(qp);
  }
  Row("queue pairs made of 1000", std::to_string(all.size()));
  int failed = 0;
  for (ibv_qp* qp : all) failed += ibv_destroy_qp(qp) != 0 ? 1 : 0;
  Row("  and not destroyed", std::to_string(failed));
}

// Another process (Peer, below) takes one message and then does `what`.
void Lost(const std::string& what) {
  End e = NewEnd();
  PeerProcess peer(what, device_name, gid_index);
  const EndName theirs = peer.Meet(e.Name());
  if (!e.Connect(theirs)) return Row("the peer " + what, "not connected");
  e.PostReceive(1, 64, 8);
  e.PostSend(2, 0, 8);
  Row("a peer that ends by " + what + ": a message", Completions(&e, 1));
  peer.Proceed();
  Row("  its end", std::to_string(peer.Wait()));
  e.PostSend(3, 0, 8);
  e.PostSend(4, 0, 8);
  Row("  two more, and the receive", Completions(&e, 3, 20'000));
  Row("  state", e.State());
}

int Peer(const std::string& what) {
  End e = NewEnd();
  const EndName theirs = ReadName(STDIN_FILENO);
  if (!e.Init() || e.PostReceive(9, 0, 8) != 0) return 1;
  WriteName(STDOUT_FILENO, e.Name());
  if (!e.Connect(theirs)) return 2;
  if (e.Wait(1, 10'000).size() != 1) return 3;
  ReadByte(STDIN_FILENO);
  if (what == "SIGKILL") raise(SIGKILL);
  if (what == "exit without closing") {
    e.Abandon();
    std::exit(0);
  }
  for (int i = 0; i < 8; ++i) {
    if (e.Post(IBV_WR_RDMA_WRITE, i, kMemory, theirs.address, theirs.rkey) != 0) return 4;
  }
  const int error = ibv_destroy_qp(e.qp);  // with data in flight
  e.qp = nullptr;
  return error;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && *argv[1] != '\0') device_name = argv[1];
  if (argc > 2) gid_index = std::atoi(argv[2]);
  if (argc > 3) return Peer(argv[3]);
  Limits();
  InUse();
  WrongStates();
  Refusals();
  Posts();
  Forks();
  Loading();
  Many();
  for (const char* what : {"exit without closing", "SIGKILL", "closing with data in flight"}) {
    Lost(what);
  }
  return 0;
}
