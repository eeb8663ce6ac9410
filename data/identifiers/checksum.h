// Check digits, as standards define them. Every argument is a number without separators; a character that the scheme
// does not know makes the answer false (or -1), never an error.
#pragma once

#include <initializer_list>
#include <string_view>

namespace retort {

/// Only '0' to '9', and at least one.
bool all_digits(std::string_view text);
/// The decimal value of up to 18 digits; the caller has checked them.
long long digits_value(std::string_view digits);
/// Sum of weight times digit, for as many as there are weights; the caller has checked the digits.
int weighted_sum(std::string_view digits, std::initializer_list<int> weights);

/// ISO/IEC 7812-1 annex B: finds every single wrong digit and most swapped neighbours.
bool luhn_holds(std::string_view digits);
/// J. Verhoeff, Error detecting decimal codes, 1969: every single wrong digit and every swap of neighbours.
bool verhoeff_holds(std::string_view digits);
/// The number mod 97, letters A-Z being 10-35, as ISO/IEC 7064 MOD 97-10 takes it; -1 for another character.
int mod_97(std::string_view text);
/// ISO/IEC 7064 MOD 11,10.
bool mod_11_10_holds(std::string_view digits);

/// A day that the (proleptic Gregorian) calendar has.
bool is_date(int year, int month, int day);
/// Whether two digits each at `year`, `month` and `day` are a date in 19yy or in 20yy.
bool is_short_date(std::string_view digits, size_t year, size_t month, size_t day);

}  // namespace retort
