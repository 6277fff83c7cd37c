// SPDX-License-Identifier: Apache-2.0
// The work of verbena_bench on libfabric's tcp provider, as its own fabtests do it: FI_EP_MSG
// (FI_EP_RDM is the utility provider ofi_rxm on top of that, and slower), manual progress, both
// sides spin on their completion queue, small messages are injected. A completion of libfabric's
// says here that TCP has the bytes; one of Verbena's, that the peer has applied them.
//
// Built without libfabric-dev every row is skipped.
#include <string>
#include <vector>

#include "tests/bench/sides.h"

#ifdef HAVE_FABRIC
#include <netinet/in.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include <array>
#include <atomic>
#include <cstring>

namespace verbena::bench {
namespace {

constexpr size_t kOutbox = 64;
constexpr uint64_t kEvery = 32;  // messages a completion, and a receive at a time

void Check(ssize_t error, const char* what) {
  if (error != 0) Die(std::string(what) + ": " + fi_strerror(static_cast<int>(-error)));
}

// Where the peer's memory is.
struct Target {
  uint64_t address;
  uint64_t key;
};

struct End {
  fi_info* info = nullptr;
  fid_fabric* fabric = nullptr;
  fid_eq* events = nullptr;
  fid_domain* domain = nullptr;
  fid_cq *sends = nullptr, *receives = nullptr;
  fid_mr* region = nullptr;
  fid_ep* endpoint = nullptr;
  std::vector<char> memory = std::vector<char>(kLarge);
  Target peer{};
  uint64_t sent = 0, received = 0;  // completions

  void* local() const { return fi_mr_desc(region); }

  // Progress is made by reading either queue.
  void Poll() {
    sent += Take(sends);
    received += Take(receives);
  }
  // Until it is taken.
  template <typename Post>
  void Retry(Post post) {
    ssize_t error;
    while ((error = post()) == -FI_EAGAIN) Poll();
    Check(error, "post");
  }
  void PostReceives(uint64_t count, size_t size) {
    for (; count > 0; --count) {
      Retry([&] { return fi_recv(endpoint, memory.data(), size, local(), 0, nullptr); });
    }
  }
  uint64_t Inbox() {
    return std::atomic_ref(*reinterpret_cast<uint64_t*>(memory.data()))
        .load(std::memory_order_acquire);
  }

 private:
  static uint64_t Take(fid_cq* queue) {
    std::array<fi_cq_entry, 64> done;
    const ssize_t n = fi_cq_read(queue, done.data(), done.size());
    if (n == -FI_EAGAIN) return 0;
    if (n > 0) return static_cast<uint64_t>(n);
    fi_cq_err_entry error{};
    fi_cq_readerr(queue, &error, 0);
    Die(std::string("a libfabric completion: ") + fi_strerror(error.err));
  }
};

fi_info* Find(const std::string& address, uint64_t flags) {
  fi_info* hints = fi_allocinfo();
  hints->ep_attr->type = FI_EP_MSG;
  hints->caps = FI_MSG | FI_RMA;
  hints->addr_format = FI_SOCKADDR_IN;
  hints->fabric_attr->prov_name = strdup("tcp");
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  fi_info* found = nullptr;
  Check(fi_getinfo(FI_VERSION(1, 17), address.c_str(), nullptr, flags, hints, &found),
        "fi_getinfo: tcp, FI_EP_MSG");
  fi_freeinfo(hints);
  return found;
}

void OpenFabric(End& end, const std::string& address, uint64_t flags) {
  end.info = Find(address, flags);
  fi_eq_attr attributes{};
  attributes.wait_obj = FI_WAIT_UNSPEC;
  Check(fi_fabric(end.info->fabric_attr, &end.fabric, nullptr), "fi_fabric");
  Check(fi_eq_open(end.fabric, &attributes, &end.events, nullptr), "fi_eq_open");
}

// The endpoint that `info` describes, enabled.
void OpenEndpoint(End& end, fi_info* info) {
  fi_cq_attr queue{};
  queue.format = FI_CQ_FORMAT_CONTEXT;
  queue.size = 8192;
  queue.wait_obj = FI_WAIT_NONE;
  Check(fi_domain(end.fabric, info, &end.domain, nullptr), "fi_domain");
  Check(fi_cq_open(end.domain, &queue, &end.sends, nullptr), "fi_cq_open");
  Check(fi_cq_open(end.domain, &queue, &end.receives, nullptr), "fi_cq_open");
  Check(fi_mr_reg(end.domain, end.memory.data(), end.memory.size(),
                  FI_SEND | FI_RECV | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE, 0, 0,
                  0, &end.region, nullptr),
        "fi_mr_reg");
  Check(fi_endpoint(end.domain, info, &end.endpoint, nullptr), "fi_endpoint");
  Check(fi_ep_bind(end.endpoint, &end.events->fid, 0), "fi_ep_bind");
  Check(fi_ep_bind(end.endpoint, &end.sends->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION),
        "fi_ep_bind");
  Check(fi_ep_bind(end.endpoint, &end.receives->fid, FI_RECV), "fi_ep_bind");
  Check(fi_enable(end.endpoint), "fi_enable");
}

fi_info* Await(End& end, uint32_t wanted) {
  fi_eq_cm_entry entry{};
  uint32_t event = 0;
  const ssize_t n = fi_eq_sread(end.events, &event, &entry, sizeof(entry), -1, 0);
  if (n < 0 || event != wanted) Die("libfabric did not connect");
  return entry.info;
}

// Swaps where the memory is; `side` is this one.
void Introduce(End& end, Shared& shared, int side) {
  const bool virtual_addresses = (end.info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
  const auto address = reinterpret_cast<uint64_t>(end.memory.data());
  const Target mine{virtual_addresses ? address : 0, fi_mr_key(end.region)};
  Tell(shared, side, &mine, sizeof(mine));
  std::memcpy(&end.peer, Hear(shared, 1 - side).bytes.data(), sizeof(end.peer));
}

void Accept(End& end, const Options& options, Shared& shared, uint64_t receives, size_t size) {
  OpenFabric(end, options.address, FI_SOURCE);
  fid_pep* listener = nullptr;
  Check(fi_passive_ep(end.fabric, end.info, &listener, nullptr), "fi_passive_ep");
  Check(fi_pep_bind(listener, &end.events->fid, 0), "fi_pep_bind");
  Check(fi_listen(listener), "fi_listen");
  sockaddr_in name{};
  size_t length = sizeof(name);
  Check(fi_getname(&listener->fid, &name, &length), "fi_getname");
  shared.port.store(ntohs(name.sin_port), std::memory_order_release);
  fi_info* request = Await(end, FI_CONNREQ);
  OpenEndpoint(end, request);
  end.PostReceives(receives, size);
  Check(fi_accept(end.endpoint, nullptr, 0), "fi_accept");
  Await(end, FI_CONNECTED);
  Introduce(end, shared, 0);
}

void Connect(End& end, const Options& options, Shared& shared, uint64_t receives, size_t size) {
  const int port = WaitForPort(shared);
  OpenFabric(end, options.address, 0);
  OpenEndpoint(end, end.info);
  end.PostReceives(receives, size);
  sockaddr_in to{};
  std::memcpy(&to, end.info->dest_addr, sizeof(to));
  to.sin_port = htons(static_cast<uint16_t>(port));
  Check(fi_connect(end.endpoint, &to, nullptr, 0), "fi_connect");
  Await(end, FI_CONNECTED);
  Introduce(end, shared, 1);
}

bool Stopped(const Shared& shared) { return shared.stop.load(std::memory_order_relaxed); }

// The client has measured; the server sees it and leaves first.
void Dismiss(End& end, Shared& shared) {
  shared.stop.store(true, std::memory_order_release);
  while (!shared.done.load(std::memory_order_acquire)) end.Poll();
}
void Leave(Shared& shared) { shared.done.store(true, std::memory_order_release); }

// --- Latency -------------------------------------------------------------------------------------

constexpr uint64_t kPings = 64;  // receives that wait

void Ping(End& end, bool write, uint64_t number) {
  char* from = end.memory.data() + kOutbox;
  std::memcpy(from, &number, sizeof(number));
  end.Retry([&] {
    return write ? fi_inject_write(end.endpoint, from, kSmall, 0, end.peer.address, end.peer.key)
                 : fi_inject(end.endpoint, from, kSmall, 0);
  });
}

bool Arrived(End& end, bool write, uint64_t number) {
  if (write ? end.Inbox() != number : end.received != number) return false;
  if (!write) end.PostReceives(1, kSmall);
  return true;
}

Row PingPong(const char* name, bool write) {
  Row row;
  row.name = name;
  row.serve = [write](const Options& options, Shared& shared) {
    End end;
    Accept(end, options, shared, write ? 0 : kPings, kSmall);
    for (uint64_t next = 1; !Stopped(shared);) {
      end.Poll();
      if (Arrived(end, write, next)) Ping(end, write, next++);
    }
    Leave(shared);
  };
  row.measure = [write](const Options& options, Shared& shared) {
    End end;
    Connect(end, options, shared, write ? 0 : kPings, kSmall);
    Samples samples;
    const Clock clock(options.seconds);
    uint64_t number = 0;
    for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
      Ping(end, write, ++number);
      while (!Arrived(end, write, number)) end.Poll();
      const uint64_t now = NowNs();
      if (clock.warm(begin)) samples.Add(now - begin);
      begin = now;
    }
    Dismiss(end, shared);
    return Latency(samples);
  };
  return row;
}

// --- Bandwidth and rates -------------------------------------------------------------------------

enum class What { kSend, kWrite, kRead };

struct Flow {
  const char* name;
  What what;
  size_t bytes;
  uint64_t window;     // outstanding
  uint64_t every = 1;  // of so many one has a completion
};

void Attend(const Flow& flow, const Options& options, Shared& shared) {
  End end;
  const bool sends = flow.what == What::kSend;
  Accept(end, options, shared, sends ? flow.window : 0, flow.bytes);
  for (uint64_t reposted = 0; !Stopped(shared);) {
    end.Poll();
    for (; end.received - reposted >= kEvery; reposted += kEvery) {
      end.PostReceives(kEvery, flow.bytes);
    }
  }
  Leave(shared);
}

void Post(const Flow& flow, End& end, bool last) {
  const uint64_t flags = last ? FI_COMPLETION : FI_MORE;
  iovec local{end.memory.data(), flow.bytes};
  void* descriptor = end.local();
  if (flow.what == What::kSend) {
    const fi_msg message{&local, &descriptor, 1, 0, nullptr, 0};
    return end.Retry([&] { return fi_sendmsg(end.endpoint, &message, flags); });
  }
  const fi_rma_iov remote{end.peer.address, flow.bytes, end.peer.key};
  const fi_msg_rma message{&local, &descriptor, 1, 0, &remote, 1, nullptr, 0};
  end.Retry([&] {
    return flow.what == What::kWrite ? fi_writemsg(end.endpoint, &message, flags)
                                     : fi_readmsg(end.endpoint, &message, flags);
  });
}

Result Push(const Flow& flow, const Options& options, Shared& shared) {
  End end;
  Connect(end, options, shared, 0, 0);
  const Clock clock(options.seconds);
  uint64_t posted = 0, begin = 0, before = 0, now = 0;
  while (!clock.over(now) || begin == 0 || end.sent == before) {
    while (posted - end.sent * flow.every < flow.window) {
      ++posted;
      Post(flow, end, posted % flow.every == 0);
    }
    end.Poll();
    now = NowNs();
    if (begin == 0 && clock.warm(now)) {
      begin = now;
      before = end.sent;
    }
  }
  Result result;
  const double requests = static_cast<double>((end.sent - before) * flow.every);
  const double ns = static_cast<double>(now - begin);
  result.unit = flow.bytes <= kMessage ? "M/s" : "GB/s";
  result.value = requests * (flow.bytes <= kMessage ? 1e3 : static_cast<double>(flow.bytes)) / ns;
  while (end.sent * flow.every != posted) end.Poll();
  Dismiss(end, shared);
  return result;
}

Row Stream(const Flow& flow) {
  return {flow.name,
          [flow](const Options& options, Shared& shared) { Attend(flow, options, shared); },
          [flow](const Options& options, Shared& shared) { return Push(flow, options, shared); }};
}

}  // namespace

std::vector<Row> Rows() {
  return {PingPong("send_ping", false),
          PingPong("write_ping", true),
          Stream({"writes", What::kWrite, kLarge, 16}),
          Stream({"reads", What::kRead, kLarge, 16}),
          Stream({"writes_4k", What::kWrite, kPage, 256, kEvery}),
          Stream({"reads_4k", What::kRead, kPage, 128}),
          Stream({"writes_64", What::kWrite, kMessage, 256, kEvery}),
          Stream({"messages", What::kSend, kMessage, 256, kEvery})};
}

}  // namespace verbena::bench

#else

namespace verbena::bench {

std::vector<Row> Rows() {
  std::vector<Row> rows;
  for (const char* name : {"send_ping", "write_ping", "writes", "reads", "writes_4k", "reads_4k",
                           "writes_64", "messages"}) {
    rows.push_back({name, {}, {}, [] {
                      return std::string(
                          "built without libfabric; tools/setup installs libfabric-dev, then "
                          "`bazel sync --configure` and build again");
                    }});
  }
  return rows;
}

}  // namespace verbena::bench

#endif

int main(int argc, char** argv) { return verbena::bench::Main(argc, argv, verbena::bench::Rows()); }
