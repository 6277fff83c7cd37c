// SPDX-License-Identifier: Apache-2.0
//
// Registered memory over a file that is truncated: the pages are pinned and remain the region's,
// though the process itself cannot touch them any more.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "probe.h"

static bool small_source(enum ibv_wr_opcode opcode, char seen[kSeen]) {
  enum { kFile = 65536 };
  struct pair pair = connect_pair((struct set_up){0});
  FILE* file = tmpfile();
  if (file == NULL || ftruncate(fileno(file), kFile) != 0) cannot("make a file");
  void* memory = mmap(NULL, kFile, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  if (memory == MAP_FAILED) cannot("map the file");
  struct ibv_mr* region = ibv_reg_mr(pair.client.qp->pd, memory, kFile, IBV_ACCESS_LOCAL_WRITE);
  if (region == NULL) cannot("register the file");
  if (ftruncate(fileno(file), 0) != 0) cannot("truncate the file");
  post_receive(&pair.server, piece(&pair.server, 4096, 8));
  post_send(&pair.client, opcode, (struct ibv_sge){(uintptr_t)memory, 8, region->lkey},
            (uintptr_t)pair.server.bytes, pair.server.mr->rkey);
  const struct ibv_wc wc = wait_one(&pair.client);
  snprintf(seen, kSeen, "%s", status_name(wc.status));
  return wc.status == IBV_WC_SUCCESS;
}

static bool small_send(char seen[kSeen]) { return small_source(IBV_WR_SEND, seen); }
static bool small_write(char seen[kSeen]) { return small_source(IBV_WR_RDMA_WRITE, seen); }

const struct deviation deviations[] = {
    {"All/TruncatedFile.FailsTheRequestOnly/verbs_SmallSendSource", "SUCCESS", small_send},
    {"All/TruncatedFile.FailsTheRequestOnly/verbs_SmallWriteSource", "SUCCESS", small_write},
    {0}};
