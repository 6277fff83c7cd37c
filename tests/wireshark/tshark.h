// SPDX-License-Identifier: Apache-2.0
// What tshark makes of a capture.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace verbena::testing {

// The program; empty: there is none here.
std::string FindTshark();

// The values of these fields in each packet that has one, in order. Every value of a packet,
// separated by commas. The test fails if tshark does.
using Row = std::map<std::string, std::string>;
enum class With { kNothing, kOurLua };
std::vector<Row> Dissect(const std::string& file, With with,
                         const std::vector<std::string>& fields);

// Of rows with more fields, those that have one of these, and only them.
std::vector<Row> Only(const std::vector<Row>& rows, const std::vector<std::string>& fields);

// What its description of the MPA layer says of CRCs; it is in no field.
struct Crcs {
  int good = 0, bad = 0;
};
Crcs JudgeCrcs(const std::string& file);

// How often `field` has each value.
std::map<std::string, int> Count(const std::vector<Row>& rows, const std::string& field);

}  // namespace verbena::testing
