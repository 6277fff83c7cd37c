// SPDX-License-Identifier: Apache-2.0
#include "transport/capabilities.h"

#include <string>

namespace verbena {

const char* LinkName(Link link) {
  switch (link) {
    case Link::kNone:
      return "none";
    case Link::kInfiniband:
      return "InfiniBand";
    case Link::kRoce:
      return "RoCE";
    case Link::kIwarp:
      return "iWARP";
  }
  return "?";
}

std::string ToString(const Capabilities& capabilities) {
  const struct {
    bool set;
    const char* name;
  } bits[] = {
      {capabilities.immediate, "immediate"},
      {capabilities.atomics, "atomics"},
      {capabilities.send_with_invalidate, "send_with_invalidate"},
      {capabilities.memory_windows, "memory_windows"},
      {capabilities.rnr, "rnr"},
      {capabilities.remote_completion, "remote_completion"},
      {capabilities.unguessable_keys, "unguessable_keys"},
      {capabilities.global_atomics, "global_atomics"},
      {capabilities.lazy_registration, "lazy_registration"},
      {capabilities.peer_counters, "peer_counters"},
      {capabilities.responder_events, "responder_events"},
      {capabilities.own_peer_known, "own_peer_known"},
      {capabilities.out_of_band, "out_of_band"},
      {capabilities.out_of_band_handshake, "out_of_band_handshake"},
      {capabilities.refusal_reasons, "refusal_reasons"},
      {capabilities.queue_pair_rights, "queue_pair_rights"},
      {capabilities.traffic_class, "traffic_class"},
      {capabilities.unreliable_datagram, "unreliable_datagram"},
      {capabilities.unreliable_connection, "unreliable_connection"},
  };
  // A bit without a name here would never be shown to anybody.
  static_assert(sizeof(Capabilities) == sizeof(bits) / sizeof(bits[0]));
  std::string text;
  for (const auto& bit : bits) {
    if (!bit.set) continue;
    if (!text.empty()) text += ' ';
    text += bit.name;
  }
  return text;
}

}  // namespace verbena
