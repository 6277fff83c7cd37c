// SPDX-License-Identifier: Apache-2.0
// How rdma_cm's ids of datagrams find each other: service ID resolution (IBTA 12.11), as one UDP
// packet to the service's port and one back. Both are checked as a stranger's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "fallback/hub.h"
#include "transport/address.h"

namespace verbena::dropin {

enum class SidrKind : uint8_t { kRequest = 1, kReply = 2, kRefusal = 3 };

struct SidrMessage {
  SidrKind kind = SidrKind::kRequest;
  uint64_t id = 0;  // of the request, and of what answers it
  uint32_t qp_number = 0;
  uint32_t qkey = 0;
  std::string private_data = {};
};
inline constexpr size_t kMaxSidrData = 192;
inline constexpr size_t kMaxSidr = 32 + kMaxSidrData;

std::string EncodeSidr(const SidrMessage& message);
std::optional<SidrMessage> DecodeSidr(std::span<const std::byte> packet);

// Asks until there is an answer, nobody listens for a while, or time is over. `done` is called
// once, on the service: the answer, or an errno (ETIMEDOUT, ECONNREFUSED). Destroyed, it is not.
class SidrCall final : fallback::Watched {
 public:
  using Done = std::function<void(const SidrMessage* answer, int error)>;
  // Null: an errno says why.
  static std::unique_ptr<SidrCall> Start(fallback::Hub* hub, const provider::Address& from,
                                         const provider::Address& to, const SidrMessage& request,
                                         Done done);
  ~SidrCall() override;

 private:
  SidrCall(fallback::Hub* hub, int socket, const SidrMessage& request, Done done);
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override;
  void Finish(const SidrMessage* answer, int error);

  fallback::Hub* const hub_;
  const int socket_;
  const uint64_t id_;
  const std::string request_;
  Done done_;
  int tries_ = 0;
  bool finished_ = false;
};

// One caller, to be answered once; the answer is sent again when the caller asks again.
struct SidrCaller {
  provider::Address from;
  Ip to = {};  // this end's address
  uint64_t id = 0;
};

class SidrListener final : fallback::Watched {
 public:
  using Arrived = std::function<void(const SidrCaller& caller, const SidrMessage& request)>;
  // `at`: port 0: any. Null: an errno says why. `arrived` is called on the service.
  static std::unique_ptr<SidrListener> Start(fallback::Hub* hub, const provider::Address& at,
                                             Arrived arrived);
  ~SidrListener() override;
  uint16_t port() const;
  // Whoever was called for may answer also when the listener is gone.
  static void Answer(const SidrCaller& caller, const SidrMessage& answer);

 private:
  SidrListener(fallback::Hub* hub, int socket, Arrived arrived);
  void OnReady(bool readable, bool writable) override;
  void OnDeadline() override {}

  fallback::Hub* const hub_;
  const int socket_;
  Arrived arrived_;
};

}  // namespace verbena::dropin
