#include "monitor/slot.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort {
namespace {

using std::chrono::days;

// ISO 8601's own examples (2004-W53, 2009-W01, 2009-W53), as Python's date.isocalendar() gives them too.
TEST(Slot, WeeksAreIso8601s) {
  EXPECT_EQ(slot_name("week", *day_of("2005-01-01")), "2004-W53");
  EXPECT_EQ(slot_name("week", *day_of("2008-12-29")), "2009-W01");
  EXPECT_EQ(slot_name("week", *day_of("2010-01-03")), "2009-W53");
  EXPECT_EQ(slot_name("week", *day_of("2026-11-23")), "2026-W48");
  EXPECT_EQ(slot_begin("week", "2009-W53"), *day_of("2009-12-28"));
}

TEST(Slot, NamesGoThereAndBackAndNumbersCountUp) {
  for (const std::string& unit : slot_units()) {
    int64_t last = slot_number(unit, slot_name(unit, *day_of("1999-12-01")));
    for (Day day = *day_of("1999-12-01"); day < *day_of("2005-03-01"); day += days(1)) {
      const std::string name = slot_name(unit, day);
      const int64_t number = slot_number(unit, name);
      EXPECT_TRUE(number == last || number == last + 1) << name;
      EXPECT_LE(slot_begin(unit, name), day) << name;
      EXPECT_EQ(slot_name(unit, slot_begin(unit, name)), name);
      last = number;
    }
  }
}

TEST(Slot, RefusesOtherNames) {
  for (const auto& [unit, name] : std::vector<std::pair<std::string, std::string>>{{"week", "2026-W54"},
                                                                                   {"week", "2025-W53"},
                                                                                   {"week", "2026-W00"},
                                                                                   {"week", "2026-48"},
                                                                                   {"week", "2026-W4x"},
                                                                                   {"week", "W48"},
                                                                                   {"week", ""},
                                                                                   {"day", "2026-02-29"},
                                                                                   {"month", "2026-13"},
                                                                                   {"year", "26"}}) {
    try {
      slot_number(unit, name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace retort
