#include "data/identifiers/checksum.h"

#include <algorithm>

namespace retort {

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

long long digits_value(std::string_view digits) {
  long long value = 0;
  for (char c : digits) value = value * 10 + (c - '0');
  return value;
}

int weighted_sum(std::string_view digits, std::initializer_list<int> weights) {
  int sum = 0;
  auto digit = digits.begin();
  for (int weight : weights) sum += weight * (*digit++ - '0');
  return sum;
}

bool luhn_holds(std::string_view digits) {
  if (!all_digits(digits)) return false;
  int sum = 0;
  bool doubled = false;
  for (auto c = digits.rbegin(); c != digits.rend(); ++c, doubled = !doubled) {
    int value = (*c - '0') * (doubled ? 2 : 1);
    sum += value > 9 ? value - 9 : value;
  }
  return sum % 10 == 0;
}

bool verhoeff_holds(std::string_view digits) {
  // The dihedral group of order 10, and powers of a permutation of it.
  static constexpr const char* product[10] = {"0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
                                              "5987604321", "6598710432", "7659821043", "8765932104", "9876543210"};
  static constexpr const char* permuted[8] = {"0123456789", "1576283094", "5803796142", "8916043527",
                                              "9453126870", "4286573901", "2793806415", "7046913258"};
  if (!all_digits(digits)) return false;
  int check = 0;
  size_t place = 0;
  for (auto c = digits.rbegin(); c != digits.rend(); ++c, ++place)
    check = product[check][permuted[place % 8][*c - '0'] - '0'] - '0';
  return check == 0;
}

int mod_97(std::string_view text) {
  int rest = 0;
  for (char c : text) {
    if (c >= '0' && c <= '9')
      rest = (rest * 10 + (c - '0')) % 97;
    else if (c >= 'A' && c <= 'Z')
      rest = (rest * 100 + (c - 'A' + 10)) % 97;
    else
      return -1;
  }
  return rest;
}

bool mod_11_10_holds(std::string_view digits) {
  if (!all_digits(digits)) return false;
  int product = 10;
  for (char c : digits.substr(0, digits.size() - 1)) {
    int sum = (c - '0' + product) % 10;
    product = (sum == 0 ? 10 : sum) * 2 % 11;
  }
  return (product + (digits.back() - '0')) % 10 == 1;
}

bool is_date(int year, int month, int day) {
  static constexpr int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (month < 1 || month > 12 || day < 1) return false;
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return day <= days[month - 1] + (month == 2 && leap ? 1 : 0);
}

bool is_short_date(std::string_view digits, size_t year, size_t month, size_t day) {
  auto two = [&](size_t at) { return static_cast<int>(digits_value(digits.substr(at, 2))); };
  return is_date(1900 + two(year), two(month), two(day)) || is_date(2000 + two(year), two(month), two(day));
}

}  // namespace retort
