// SPDX-License-Identifier: Apache-2.0
// For tests: Load() and Lib() give the driver that is linked in (tests/bench/stub_driver) instead
// of what library.cc finds at run time. A test may put functions of its own into it.
#pragma once

#include "verbs/library.h"

namespace verbena::verbs {

Library LinkedLibrary();  // as it is linked
Library& the_library();   // what Lib() gives

}  // namespace verbena::verbs
