// SPDX-License-Identifier: Apache-2.0
#include "verbs/resources.h"

#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "verbs/errors.h"

namespace verbena::verbs {
namespace {

struct Kind {
  const char* plural;
  const char* limit;   // in ibv_query_device(3)
  const char* kernel;  // its name in the kernel's summary; null: not in it
  int ibv_device_attr::*most;
};

const Kind& KindOf(Resource resource) {
  static constexpr Kind kKinds[] = {
      {"protection domains", "max_pd", "pd", &ibv_device_attr::max_pd},
      {"completion queues", "max_cq", "cq", &ibv_device_attr::max_cq},
      {"queue pairs", "max_qp", "qp", &ibv_device_attr::max_qp},
      {"memory regions", "max_mr", "mr", &ibv_device_attr::max_mr},
      {"memory windows", "max_mw", nullptr, &ibv_device_attr::max_mw},
      {"shared receive queues", "max_srq", "srq", &ibv_device_attr::max_srq},
  };
  return kKinds[static_cast<size_t>(resource)];
}

// The attributes of a netlink(7) message, or of one that holds others.
class Attributes {
 public:
  explicit Attributes(std::string_view bytes) : bytes_(bytes) {}

  // False: there are no more. What is cut short is none.
  bool Next() {
    nlattr head;
    if (bytes_.size() < sizeof head) return false;
    std::memcpy(&head, bytes_.data(), sizeof head);
    if (head.nla_len < sizeof head || head.nla_len > bytes_.size()) return false;
    type = head.nla_type & NLA_TYPE_MASK;
    value = bytes_.substr(sizeof head, head.nla_len - sizeof head);
    bytes_.remove_prefix(std::min<size_t>(NLA_ALIGN(head.nla_len), bytes_.size()));
    return true;
  }
  std::string_view text() const { return value.substr(0, value.find('\0')); }

  int type = 0;
  std::string_view value;

 private:
  std::string_view bytes_;
};

std::optional<uint64_t> CountIn(std::string_view entry, std::string_view wanted) {
  std::optional<uint64_t> count;
  bool is_it = false;
  for (Attributes each(entry); each.Next();) {
    if (each.type == RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME) is_it = each.text() == wanted;
    if (each.type == RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR && each.value.size() == 8) {
      uint64_t value = 0;
      std::memcpy(&value, each.value.data(), sizeof value);
      count = value;
    }
  }
  return is_it ? count : std::nullopt;
}

// One device's answer.
std::optional<uint64_t> CountOf(std::string_view answer, const std::string& device,
                                std::string_view wanted) {
  bool is_it = false;
  std::optional<uint64_t> count;
  for (Attributes each(answer); each.Next();) {
    if (each.type == RDMA_NLDEV_ATTR_DEV_NAME) is_it = each.text() == device;
    if (each.type != RDMA_NLDEV_ATTR_RES_SUMMARY) continue;
    for (Attributes entry(each.value); entry.Next();) {
      if (!count) count = CountIn(entry.value, wanted);
    }
  }
  return is_it ? count : std::nullopt;
}

// Of one datagram, which may hold the answers of many devices.
std::optional<uint64_t> CountOfAny(std::string_view bytes, const std::string& device,
                                   std::string_view wanted, bool* done) {
  while (bytes.size() >= sizeof(nlmsghdr)) {
    nlmsghdr head;
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.nlmsg_len < sizeof head || head.nlmsg_len > bytes.size()) break;
    if (head.nlmsg_type == NLMSG_DONE || head.nlmsg_type == NLMSG_ERROR) {
      *done = true;
      break;
    }
    const std::string_view answer = bytes.substr(NLMSG_HDRLEN, head.nlmsg_len - NLMSG_HDRLEN);
    if (const auto count = CountOf(answer, device, wanted); count) return count;
    bytes.remove_prefix(std::min<size_t>(NLMSG_ALIGN(head.nlmsg_len), bytes.size()));
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> InUse(const std::string& device, Resource resource) {
  const char* const wanted = KindOf(resource).kernel;
  if (wanted == nullptr) return std::nullopt;
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
  if (fd < 0) return std::nullopt;
  const timeval second{.tv_sec = 1, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
  nlmsghdr ask{};
  ask.nlmsg_len = sizeof ask;
  ask.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_RES_GET);
  ask.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  std::optional<uint64_t> count;
  std::vector<char> answer(1 << 15);
  bool done = send(fd, &ask, sizeof ask, 0) != static_cast<ssize_t>(sizeof ask);
  while (!done && !count) {
    const ssize_t n = recv(fd, answer.data(), answer.size(), 0);
    if (n <= 0) break;
    count = CountOfAny({answer.data(), static_cast<size_t>(n)}, device, wanted, &done);
  }
  close(fd);
  return count;
}

absl::Status NoMore(int error, const std::string& what, Resource resource,
                    const ibv_device_attr& limits, std::optional<uint64_t> in_use,
                    const std::string& remedy) {
  const Kind& kind = KindOf(resource);
  const int most = limits.*kind.most;
  std::string count =
      absl::StrCat("the device has at most ", most, " ", kind.plural, " (", kind.limit, ")");
  if (in_use) absl::StrAppend(&count, ", ", *in_use, " exist in all processes");
  // cgroup-v2, "RDMA": the one reason for this errno.
  if (error == EAGAIN) count = "the control group of this process allows no more (rdma.max)";
  // One sentence: lists of candidates show the first one.
  const absl::Status status = ErrnoStatus(error, absl::StrCat(what, ": ", count), remedy);
  // Soft-RoCE says EINVAL when it has none left (Linux 6.1 rxe_pool.c __rxe_add_to_pool).
  const bool exhausted =
      error == EAGAIN || (in_use && *in_use >= static_cast<uint64_t>(std::max(most, 0)));
  return exhausted ? absl::ResourceExhaustedError(status.message()) : status;
}

}  // namespace verbena::verbs
