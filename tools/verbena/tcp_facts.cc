// SPDX-License-Identifier: Apache-2.0
#include "tools/verbena/tcp_facts.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace verbena::tool {
namespace {

using GetName = int (*)(int, sockaddr*, socklen_t*);

// "10.0.0.1:7175", "[::1]:7175", as ConnectionInfo has it; empty: no such socket, or no such name.
std::string NameOf(int socket, GetName get_name) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (get_name(socket, reinterpret_cast<sockaddr*>(&name), &length) != 0) return "";
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (name.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(name);
    inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
    return absl::StrCat(text.data(), ":", ntohs(v4.sin_port));
  }
  if (name.ss_family != AF_INET6) return "";
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text.data(), text.size());
    return absl::StrCat(text.data(), ":", ntohs(v6.sin6_port));
  }
  inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
  return absl::StrCat("[", text.data(), "]:", ntohs(v6.sin6_port));
}

uint32_t BufferOf(int socket, int option) {
  int bytes = 0;
  socklen_t length = sizeof bytes;
  getsockopt(socket, SOL_SOCKET, option, &bytes, &length);
  return static_cast<uint32_t>(bytes);
}

}  // namespace

TcpFacts FactsOf(const ConnectionInfo& connection) {
  TcpFacts facts;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return facts;
  while (const dirent* entry = readdir(directory)) {
    const int fd = atoi(entry->d_name);
    if (NameOf(fd, getpeername) != connection.peer || NameOf(fd, getsockname) != connection.local) {
      continue;
    }
    std::array<char, 17> name{};
    socklen_t length = name.size() - 1;
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), &length);
    facts.congestion_control = name.data();
    facts.send_buffer = BufferOf(fd, SO_SNDBUF);
    facts.receive_buffer = BufferOf(fd, SO_RCVBUF);
    break;
  }
  closedir(directory);
  return facts;
}

}  // namespace verbena::tool
