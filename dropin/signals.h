// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace verbena::dropin {

// For calls that stand for a read(2) and wait in a poll(2): whether a handler that has run ends
// them. It does unless it was installed with SA_RESTART. poll(2) ends in any case, and does not say
// by which handler; where a program has both kinds, by any.
bool SignalsInterrupt();

}  // namespace verbena::dropin
