// SPDX-License-Identifier: Apache-2.0
//
// A listener on [::], which is for IPv4 as well (rdma_bind_addr(3), ipv6(7)), and a caller of the
// device's IPv4 address.
#include <netinet/in.h>
#include <stdio.h>

#include "probe.h"

static bool called(char seen[kSeen]) {
  struct rdma_event_channel *ours = rdma_create_event_channel(),
                            *theirs = rdma_create_event_channel();
  if (ours == NULL || theirs == NULL) cannot("open rdma_cm");
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(7471)};
  struct rdma_cm_id* listener;
  if (rdma_create_id(theirs, &listener, NULL, RDMA_PS_TCP) != 0 ||
      rdma_bind_addr(listener, (struct sockaddr*)&any) != 0 || rdma_listen(listener, 1) != 0) {
    cannot("listen");
  }
  struct end client = {0};
  if (rdma_create_id(ours, &client.id, NULL, RDMA_PS_TCP) != 0 ||
      rdma_resolve_addr(client.id, NULL, device_address()->ai_addr, 2000) != 0) {
    cannot("resolve the address");
  }
  next_event(ours, RDMA_CM_EVENT_ADDR_RESOLVED);
  if (rdma_resolve_route(client.id, 2000) != 0) cannot("resolve the route");
  next_event(ours, RDMA_CM_EVENT_ROUTE_RESOLVED);
  make_end(&client, (struct set_up){0});
  struct rdma_conn_param parameters = {.retry_count = 7};
  if (rdma_connect(client.id, &parameters) != 0) cannot("connect");
  const bool came = readable_within(theirs->fd, 5000);
  snprintf(seen, kSeen, came ? "a connection request" : "no connection request in 5 s");
  return came;
}

const struct deviation deviations[] = {
    {"All/Connections.AnyAddressListensOnAll/verbs", "a connection request", called}, {0}};
