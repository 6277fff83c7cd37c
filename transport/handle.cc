// SPDX-License-Identifier: Apache-2.0
#include "transport/handle.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "transport/log.h"

namespace verbena {

void ReportUnclosable(const absl::Status& why) {
  VERBENA_LOG(kError, "api",
              "an object was destroyed that could not be closed; it is leaked: ", why.message(),
              " Destroy what was made from an object before the object.");
}

}  // namespace verbena
