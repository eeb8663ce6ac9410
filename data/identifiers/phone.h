// Telephone numbers through libphonenumber.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

/// Regions whose national numbers libphonenumber knows: ISO 3166 codes, sorted.
std::vector<std::string> phone_regions();

struct PhoneNumber {
  size_t begin, end;
};

/// The valid numbers in `text`, in the international form and, for each region in order, in its national form; grouped
/// as its region may write it. They do not overlap. Slow: about 0.1 ms for a number and a region. Text that is not
/// UTF-8 has none. May be called from several threads.
std::vector<PhoneNumber> find_phone_numbers(std::string_view text, const std::vector<std::string>& regions);

}  // namespace retort
