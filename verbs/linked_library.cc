// SPDX-License-Identifier: Apache-2.0
#include "verbs/linked_library.h"

namespace verbena::verbs {

Library LinkedLibrary() {
  Library library;
#define VERBENA_STUB(member, symbol, version) library.member = &::symbol;
  VERBENA_IBVERBS_SYMBOLS(VERBENA_STUB)
  VERBENA_RDMACM_SYMBOLS(VERBENA_STUB)
#undef VERBENA_STUB
  return library;
}

Library& the_library() {
  static Library library = LinkedLibrary();
  return library;
}

absl::StatusOr<const Library*> Load() { return &the_library(); }
const Library& Lib() { return the_library(); }

}  // namespace verbena::verbs
