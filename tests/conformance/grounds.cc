// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/grounds.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "fallback/io/sim_network.h"
#include "fallback/provider.h"
#include "transport/providers.h"

namespace verbena::conformance {
namespace {

std::string Text(const sockaddr_in& address) {
  char host[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
  return absl::StrCat(host, ":", ntohs(address.sin_port));
}

// The descriptor of this process whose TCP connection has these ends; -1: none.
int FindSocket(const ConnectionInfo& connection) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  for (int fd = 0; fd < static_cast<int>(limit.rlim_cur); ++fd) {
    sockaddr_in local{}, peer{};
    socklen_t size = sizeof local;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) continue;
    size = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    if (Text(local) == connection.local && Text(peer) == connection.peer) return fd;
  }
  return -1;
}

class Kernel : public Ground {
 public:
  explicit Kernel(std::string provider) : provider_(std::move(provider)) {}

  // That provider and no other: a case makes its objects on the first device.
  absl::StatusOr<Context> NewHost() override {
    return Context::Open(
        {.device = provider_, .rdma = provider_ == "tcp" ? Rdma::kOff : Rdma::kRequired});
  }
  std::string address(int) const override { return "127.0.0.1"; }
  std::string address6() const override { return "::1"; }
  bool simulated() const override { return false; }
  bool Cut(const QueuePair& qp) override {
    const int fd = FindSocket(qp.connection());
    // Connecting a TCP socket to nowhere resets it (RFC 793's ABORT), see connect(2) on AF_UNSPEC.
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;
    // (The bare call: ThreadSanitizer would take it for a new descriptor.)
    return fd >= 0 && syscall(SYS_connect, fd, &nowhere, sizeof nowhere) == 0;
  }
  bool Silence(bool) override { return false; }
  int TrafficClass(const QueuePair& qp) override {
    const int fd = FindSocket(qp.connection());
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, IPPROTO_IP, IP_TOS, &value, &size) == 0 ? value : -1;
  }

 private:
  std::string provider_;
};

// RDMA devices: the one that VERBENA_DEVICE names, or all. Both hosts are this machine, which
// reaches itself over the address of the device's interface. The client's device may be another,
// VERBENA_CLIENT_DEVICE, where the machine's routes lead from the one to the other
// (tests/soft_rdma/inside/on_the_wire).
class RdmaDevice : public Ground {
 public:
  explicit RdmaDevice(const std::string& provider) : devices_{provider, provider} {
    const char* named = std::getenv("VERBENA_DEVICE");
    if (named != nullptr && absl::StartsWith(named, provider)) devices_[0] = devices_[1] = named;
    if (const char* other = std::getenv("VERBENA_CLIENT_DEVICE")) devices_[1] = other;
    // What a host listens on is what the other one's device leads to.
    static const auto* const found =
        new std::array{FindAddress(devices_[1], AF_INET), FindAddress(devices_[0], AF_INET),
                       FindAddress(devices_[1], AF_INET6)};
    found_ = found;
  }

  absl::StatusOr<Context> NewHost() override {
    return Open(devices_[static_cast<size_t>(std::min(hosts_++, 1))]);
  }
  std::string address(int host) const override { return (*found_)[host == 0 ? 0 : 1]; }
  std::string address6() const override { return (*found_)[2]; }
  bool simulated() const override { return false; }
  // A queue pair in ERR still says goodbye, and nothing else of a device is within our reach.
  bool Cut(const QueuePair&) override { return false; }
  bool Silence(bool) override { return false; }

 private:
  // That provider alone, without selection, as simulated networks are: a case makes its objects on
  // the first device, and counts its connects.
  static absl::StatusOr<Context> Open(const std::string& device) {
    const std::string name = device.substr(0, device.find(':'));
    for (const ProviderEntry& entry : AllProviders()) {
      if (entry.name != name) continue;
      auto opened = entry.open(name == device ? "" : device.substr(name.size() + 1), nullptr);
      if (!opened.ok()) return opened.status();
      return Context::OpenOn(*std::move(opened));
    }
    return absl::NotFoundError(absl::StrCat("no provider ", name));
  }

  // The first address of this machine, and family, that the device leads to; empty: none.
  static std::string FindAddress(const std::string& device, int family) {
    absl::StatusOr<Context> context = Open(device);
    ifaddrs* all = nullptr;
    if (!context.ok() || getifaddrs(&all) != 0) return "";
    std::string found;
    for (const ifaddrs* i = all; i != nullptr && found.empty(); i = i->ifa_next) {
      if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != family) continue;
      if ((i->ifa_flags & IFF_LOOPBACK) != 0) continue;
      char ip[INET6_ADDRSTRLEN];
      const void* raw = &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr;
      if (family == AF_INET6) {
        const auto* v6 = reinterpret_cast<const sockaddr_in6*>(i->ifa_addr);
        if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) continue;
        raw = &v6->sin6_addr;
      }
      inet_ntop(family, raw, ip, sizeof ip);
      const std::string where =
          family == AF_INET6 ? absl::StrCat("[", ip, "]:1") : absl::StrCat(ip, ":1");
      if (context->Resolve(where).ok()) found = ip;
    }
    freeifaddrs(all);
    return found;
  }

  std::array<std::string, 2> devices_;
  const std::array<std::string, 3>* found_;
  int hosts_ = 0;
};

void Count(uint64_t base, const io::SimInjected& injected);

class Simulated : public Ground {
 public:
  Simulated(uint64_t base, const io::SimOptions& options)
      : base_(base), seed_(options.seed), network_(options) {}
  ~Simulated() override { Count(base_, network_.injected()); }

  absl::StatusOr<Context> NewHost() override {
    absl::StatusOr<std::unique_ptr<provider::Context>> provider =
        fallback::OpenOn(network_.NewWorld(address(hosts_++)), "");
    if (!provider.ok()) return provider.status();
    return Context::OpenOn(*std::move(provider));
  }
  std::string address(int host) const override { return absl::StrCat("10.0.0.", host + 1); }
  bool simulated() const override { return true; }
  uint64_t seed() const override { return seed_; }
  bool Cut(const QueuePair&) override { return network_.ResetOne(); }
  bool Silence(bool on) override {
    network_.Partition(address(0), address(1), on);
    return true;
  }
  std::string Report() const override {
    return absl::StrCat("VERBENA_SIM_SEED=", seed_, ": ", network_.Describe());
  }

 private:
  const uint64_t base_;  // the N of sim_N
  const uint64_t seed_;
  io::SimNetwork network_;
  int hosts_ = 0;
};

// What all simulated cases of this process were given. A network that did no harm tested nothing.
class InjectedInAll : public testing::Environment {
 public:
  void Add(uint64_t base, const io::SimInjected& more) {
    Total& total = totals_[base];
    ++total.networks;
    total.injected.partial_reads += more.partial_reads;
    total.injected.short_writes += more.short_writes;
    total.injected.resets += more.resets;
    total.injected.delays += more.delays;
    total.injected.would_blocks += more.would_blocks;
    total.injected.losses += more.losses;
    total.injected.duplicates += more.duplicates;
    total.injected.datagrams += more.datagrams;
  }

  void TearDown() override {
    uint64_t resets = 0;
    uint64_t networks = 0;
    for (const auto& [base, total] : totals_) {
      const io::SimInjected& did = total.injected;
      std::cout << "sim_" << base << ": " << total.networks << " networks with " << did.ToString()
                << "\n";
      resets += did.resets;
      networks += total.networks;
      if (total.networks < kEnough) continue;  // one case alone may send too little to be harmed
      EXPECT_GT(did.partial_reads, 0u);
      EXPECT_GT(did.short_writes, 0u);
      EXPECT_GT(did.delays, 0u);
      EXPECT_GT(did.would_blocks, 0u);
      if (did.datagrams < kMany) continue;  // few cases send any
      EXPECT_GT(did.losses, 0u);
      EXPECT_GT(did.duplicates, 0u);
    }
    if (networks >= kMany) {
      EXPECT_GT(resets, 0u);
    }
  }

 private:
  static constexpr int kEnough = 50;
  static constexpr uint64_t kMany = 400;  // only some cases ask for a reset
  struct Total {
    uint64_t networks = 0;
    io::SimInjected injected;
  };
  std::map<uint64_t, Total> totals_;
};

// gtest owns it.
InjectedInAll* const injected_in_all =
    static_cast<InjectedInAll*>(testing::AddGlobalTestEnvironment(new InjectedInAll));

void Count(uint64_t base, const io::SimInjected& injected) { injected_in_all->Add(base, injected); }

}  // namespace

std::unique_ptr<Ground> KernelGround(const std::string& provider) {
  if (provider == "tcp") return std::make_unique<Kernel>(provider);
  return std::make_unique<RdmaDevice>(provider);
}

std::unique_ptr<Ground> SimulatedGround(uint64_t kind, uint64_t seed) {
  io::SimOptions options{.seed = seed};
  if (kind == 2) {
    options.capacity = 4 << 10;
    options.partial_read = 0.8;
    options.short_write = 0.6;
    options.would_block = 0.2;
  } else if (kind == 3) {
    options.latency = 1'000'000;
    options.delay = 0.5;
    options.max_delay = 20'000'000;
    options.stall = 5'000'000;
  }
  return std::make_unique<Simulated>(kind, options);
}

uint64_t SeedFor(uint64_t seed, const std::string& test) {
  uint64_t replayed = 0;
  const char* text = std::getenv("VERBENA_SIM_SEED");
  if (text != nullptr && absl::SimpleAtoi(text, &replayed)) return replayed;
  // FNV-1a of the case's name without its parameter, so that the sim_N differ by `seed` only.
  uint64_t hash = 0xcbf29ce484222325 ^ seed;
  for (char c : test) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash >> 32;
}

}  // namespace verbena::conformance
