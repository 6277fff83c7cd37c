// SPDX-License-Identifier: Apache-2.0
//
// What the programs of this folder share. Each shows rows of rxe.txt or siw.txt with libibverbs
// and librdmacm alone, nothing of Verbena: two connected ends in one process, on the device of
// VERBENA_SOFT_RDMA_ADDRESS. A program defines `deviations`; probe.c has main().
#pragma once

#include <infiniband/verbs.h>
#include <netdb.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { kMemory = 1 << 20, kSeen = 200 };

// A row: its case, what the case expects, and how to see what happens. `show` writes that
// to `seen` and returns true if the device does as expected: the row has lost its reason.
struct deviation {
  const char* name;
  const char* expected;
  bool (*show)(char seen[kSeen]);
};
extern const struct deviation deviations[];  // the last one has no name

struct end {
  struct rdma_cm_id* id;
  struct ibv_qp* qp;
  struct ibv_cq* cq;  // of both queues
  struct ibv_srq* srq;
  struct ibv_comp_channel* channel;
  struct ibv_mr* mr;
  unsigned char* bytes;  // kMemory of them, zero; registered with all rights that the device knows
};
struct pair {
  struct end client, server;
};

// How the two ends are made; all zero will do.
struct set_up {
  bool shared;            // the server's receives come from an SRQ
  bool notified;          // the server's completion queue has a channel
  uint8_t connect_depth;  // initiator depth and responder resources of the client
  uint8_t connect_resources;
  uint8_t accept_depth;  // and of the server
  uint8_t accept_resources;
};
struct pair connect_pair(struct set_up how);

// The parts of it. The device's address, with a port; the next event, which has to be this one.
struct addrinfo* device_address(void);
// Its index on port 1, and the GID itself.
uint8_t gid_index(struct ibv_context* context, const struct addrinfo* address, union ibv_gid* gid);
struct rdma_cm_event next_event(struct rdma_event_channel* channel,
                                enum rdma_cm_event_type expected);
void make_end(struct end* end, struct set_up how);
bool readable_within(int fd, int milliseconds);

// No completion after ten seconds: status NOTHING.
enum { NOTHING = 1000 };
struct ibv_wc wait_one(struct end* end);
const char* status_name(int status);

// An asynchronous event of this kind within three seconds.
bool event_comes(struct end* end, enum ibv_event_type type);

struct ibv_sge piece(struct end* end, size_t offset, uint32_t length);
void post_receive(struct end* end, struct ibv_sge entry);
// One entry, signalled. Remote: `address` and `key`, or the key to be invalidated.
void post_send(struct end* end, enum ibv_wr_opcode opcode, struct ibv_sge entry, uint64_t address,
               uint32_t key);

// The key of a new window of type 2 over that part of the end's memory, for reads and writes.
uint32_t bind_window(struct end* end, size_t first, size_t length);

// Ends the program with status 2: the set-up failed, nothing was shown.
_Noreturn void cannot(const char* what);
