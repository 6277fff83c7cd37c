// SPDX-License-Identifier: Apache-2.0
#include "tests/rpc/names/etcd_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace verbena::testing {
namespace {

std::string NewFolder() {
  const char* scratch = std::getenv("TEST_TMPDIR");
  std::string path = std::string(scratch == nullptr ? "/tmp" : scratch) + "/etcd.XXXXXX";
  return mkdtemp(path.data()) == nullptr ? "" : path;
}

}  // namespace

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  const bool found = bind(fd, any, length) == 0 && getsockname(fd, any, &length) == 0;
  close(fd);
  return found ? ntohs(address.sin_port) : 0;
}

EtcdServer::EtcdServer() : data_(NewFolder()) { Start(); }

EtcdServer::~EtcdServer() {
  process_.reset();
  LoseData();
}

void EtcdServer::Kill() {
  process_->Kill(SIGKILL);
  process_->Wait();
  process_.reset();
}

void EtcdServer::LoseData() { std::filesystem::remove_all(data_); }

void EtcdServer::Start() {
  const std::string client = "http://" + endpoint();
  const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
  process_ = std::make_unique<Process>(std::vector<std::string>{
      "/usr/bin/etcd", "--data-dir", data_, "--listen-client-urls", client,
      "--advertise-client-urls", client, "--listen-peer-urls", peer,
      "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
      // Leases of a second need an election that is quicker than that.
      "--heartbeat-interval=10", "--election-timeout=100", "--unsafe-no-fsync"});
  process_->ErrorLineWith("serving insecure client requests");
}

std::string EtcdServer::endpoint() const { return "127.0.0.1:" + std::to_string(port_); }

std::string EtcdServer::Name(const std::string& service) const {
  return "etcd:" + endpoint() + "/" + service;
}

}  // namespace verbena::testing
