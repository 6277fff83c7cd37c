// SPDX-License-Identifier: Apache-2.0
// The note of a connection request: which devices the caller did not choose, and why, so that both
// ends say the same. Stands between the application's private data and the record; docs/wire.md.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "transport/options.h"

namespace verbena::engine {

// Lines of "device: reason" and their length as one byte. What does not fit is left out.
std::string EncodeNote(const std::vector<Candidate>& candidates);

// Takes the note off the end of `data`, as plain text. What is no note is left there.
std::vector<Candidate> TakeNote(std::span<const std::byte>* data);

}  // namespace verbena::engine
