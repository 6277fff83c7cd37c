// SPDX-License-Identifier: Apache-2.0
// Ends of datagrams, and how to bring one across a network that may lose it or bring it twice.
#pragma once

#include <memory>
#include <string>

#include "tests/conformance/pair.h"
#include "transport/datagram.h"

namespace verbena::conformance {

class Datagrams : public Conformance {
 protected:
  static constexpr uint32_t kQkey = 0x11112222;
  static constexpr uint64_t kOften = 10;
  struct Two {
    std::unique_ptr<End> server, client;
    AddressHandle to_server;  // of the client
  };

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
  Two MakeTwo(const EndOptions& options = {});
  static Destination To(const AddressHandle& handle, const End& end, uint32_t qkey = kQkey) {
    return {.address = &handle, .qp_number = end.qp.number(), .qkey = qkey};
  }
  std::string client_address() const { return GroundOf()->address(1); }
  std::string server_address() const { return GroundOf()->address(0); }

  // Posts `request` with a number of its own as immediate, again and again, until the receive that
  // is posted at `to` has it; the completion of that. Copies of earlier ones are put aside.
  WorkCompletion Deliver(End& from, End& to, SendWr request, const ReceiveWr& receive,
                         Line line = Line::Here());

  // Posts `request` kOften times: a network may lose one of them.
  void PostOften(End& from, const SendWr& request);
  // Until all have come that PostOften sent: the last ones may be on their way for a while.
  void WaitForDrops(End& to, uint64_t QpCounters::*count);

 private:
  Ground* GroundOf() const { return &const_cast<Datagrams*>(this)->ground(); }
  uint32_t next_ = 1;
};

}  // namespace verbena::conformance
