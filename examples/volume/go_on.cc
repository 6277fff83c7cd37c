// SPDX-License-Identifier: Apache-2.0
#include "examples/volume/go_on.h"

#include <vector>

namespace verbena::volume {
namespace {

thread_local std::vector<rpc::Suspension*>* behind = nullptr;  // null: nobody is in GoOn()

}  // namespace

void GoOn(rpc::Suspension& waits) {
  if (behind != nullptr) return behind->push_back(&waits);
  std::vector<rpc::Suspension*> next;  // without memory, mostly
  behind = &next;
  waits.Resume();
  for (size_t i = 0; i < next.size(); ++i) next[i]->Resume();
  behind = nullptr;
}

}  // namespace verbena::volume
