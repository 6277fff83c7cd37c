// SPDX-License-Identifier: Apache-2.0
#include "dropin/cm_state.h"

namespace verbena::dropin {
namespace {

ManagerState*& Current() {
  static ManagerState* state = new ManagerState;  // never destroyed, as what it lists
  return state;
}

}  // namespace

ManagerState& ManagerState::Get() { return *Current(); }

void ManagerState::InChild() { Current() = new ManagerState; }

}  // namespace verbena::dropin
