#include "monitor/slot.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace retort {
namespace {

using std::chrono::days;

/// The Monday before or at a day.
Day monday_of(Day day) { return day - (std::chrono::weekday(day) - std::chrono::Monday); }

std::string week_name(Day day) {
  // ISO 8601: the week is of the year that has its Thursday.
  const Day thursday = monday_of(day) + days(3);
  const auto year = std::chrono::year_month_day(thursday).year();
  const auto week = (thursday - Day(year / std::chrono::January / 1)).count() / 7 + 1;
  return fmt::format("{:04}-W{:02}", static_cast<int>(year), week);
}

}  // namespace

const std::vector<std::string>& slot_units() {
  static const std::vector<std::string> units = {"day", "week", "month", "year"};
  return units;
}

std::string slot_name(const std::string& unit, Day day) {
  if (unit == "week") return week_name(day);
  const std::chrono::year_month_day date(day);
  const std::string name = fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                                       static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  return name.substr(0, unit == "year" ? 4 : unit == "month" ? 7 : 10);
}

Day slot_begin(const std::string& unit, const std::string& name) {
  std::optional<Day> day;
  if (unit != "week") {
    day = day_of(name + (unit == "year" ? "-01-01" : unit == "month" ? "-01" : ""));
  } else if (const auto january = day_of(name.substr(0, std::min<size_t>(name.size(), 4)) + "-01-04");
             january && name.size() == 8 && name.find_first_not_of("0123456789", 6) == std::string::npos) {
    day = monday_of(*january) + days(7 * (std::stoi(name.substr(6)) - 1));
  }
  if (!day || slot_name(unit, *day) != name)
    fail(Exit::usage, "slot \"{}\": with slot: {} a name looks like {}", name, unit,
         slot_name(unit, Day(std::chrono::year(2026) / 11 / 23)));
  return *day;
}

int64_t slot_number(const std::string& unit, const std::string& name) {
  const Day day = slot_begin(unit, name);
  const std::chrono::year_month_day date(day);
  const int64_t year = static_cast<int>(date.year());
  if (unit == "year") return year;
  if (unit == "month") return 12 * year + static_cast<unsigned>(date.month()) - 1;
  const int64_t number = day.time_since_epoch().count();
  return unit == "week" ? (number + 3) / 7 : number;  // 1970-01-01 was a Thursday
}

}  // namespace retort
