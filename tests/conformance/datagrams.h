// SPDX-License-Identifier: Apache-2.0
// Ends of datagrams, and how to bring one across a network that may lose it or bring it twice.
#pragma once

#include <memory>
#include <string>

#include "tests/conformance/pair.h"
#include "transport/datagram.h"

namespace verbena::conformance {

class DatagramsBase : public Conformance {
 protected:
  static constexpr uint32_t kQkey = 0x11112222;

  void SetUp() override {
    Conformance::SetUp();
    if (!server().devices()[0]->capabilities().unreliable_datagram) {
      GTEST_SKIP() << "capability: unreliable_datagram";
    }
  }

  // A queue pair in RTS, with a queue of its own for receives.
  std::unique_ptr<End> NewEnd(Context& host, EndOptions options = {});
  static void MoveToRts(QueuePair& qp, uint32_t qkey = kQkey);
  // From `from` to the queue pair `to` of the other host, or its own.
  AddressHandle HandleTo(End& from, const std::string& address, Line line = Line::Here()) {
    return Check(from.pd.CreateAddressHandle({.address = address}), line);
  }
  std::string client_address() const { return GroundOf()->address(1); }
  std::string server_address() const { return GroundOf()->address(0); }

  // Posts `request` with a number of its own as immediate, again and again, until the receive that
  // is posted at `to` has it; the completion of that. Copies of earlier ones are put aside.
  WorkCompletion Deliver(End& from, End& to, SendWr request, const ReceiveWr& receive,
                         Line line = Line::Here());

 private:
  Ground* GroundOf() const { return &const_cast<DatagramsBase*>(this)->ground(); }
  uint32_t next_ = 1;
};

}  // namespace verbena::conformance
