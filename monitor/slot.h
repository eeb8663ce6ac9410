// Slots of time: a day, an ISO week, a month or a year, by name ("2026-11-23", "2026-W48", "2026-11", "2026").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "monitor/traffic.h"

namespace retort {

/// "day", "week", "month", "year".
const std::vector<std::string>& slot_units();
std::string slot_name(const std::string& unit, Day day);
/// Consecutive slots have consecutive numbers. Error(usage) for a name that is none of the unit's.
int64_t slot_number(const std::string& unit, const std::string& name);
/// The slot's first day. Errors as slot_number().
Day slot_begin(const std::string& unit, const std::string& name);

}  // namespace retort
