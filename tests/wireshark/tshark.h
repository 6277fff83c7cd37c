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
std::vector<Row> Dissect(const std::string& file, With with, const std::vector<std::string>& fields,
                         const std::string& filter = "");

// How often its description of the MPA layer has these words: some things are in no field.
int Mentions(const std::string& file, const std::string& words);

// How often `field` has each value.
std::map<std::string, int> Count(const std::vector<Row>& rows, const std::string& field);

}  // namespace verbena::testing
