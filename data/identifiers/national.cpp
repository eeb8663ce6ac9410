#include "data/identifiers/national.h"

#include <algorithm>
#include <array>
#include <string>

#include "data/identifiers/checksum.h"

namespace retort {
namespace {

bool digits_of_length(std::string_view text, size_t length) { return text.size() == length && all_digits(text); }

int two_digits(std::string_view digits, size_t at) { return static_cast<int>(digits_value(digits.substr(at, 2))); }

int last_digit(std::string_view digits) { return digits.back() - '0'; }

bool is_one_of(std::string_view word, std::string_view words) {
  for (size_t at = 0; at + word.size() <= words.size(); at += word.size() + 1)
    if (words.substr(at, word.size()) == word) return true;
  return false;
}

}  // namespace

bool is_us_ssn(std::string_view number) {
  if (!digits_of_length(number, 9)) return false;
  std::string_view area = number.substr(0, 3);
  if (area == "000" || area == "666" || area[0] == '9' || number.substr(3, 2) == "00" || number.substr(5) == "0000")
    return false;
  return !is_one_of(number, "078051120 219099999 457555462");
}

bool is_us_itin(std::string_view number) {
  if (!digits_of_length(number, 9) || number[0] != '9') return false;
  int group = two_digits(number, 3);
  return (group >= 50 && group <= 65) || (group >= 70 && group != 89 && group != 93);
}

bool is_uk_nhs(std::string_view number) {
  return digits_of_length(number, 10) && weighted_sum(number, {10, 9, 8, 7, 6, 5, 4, 3, 2, 1}) % 11 == 0;
}

bool is_es_nif(std::string_view number) {
  if (number.size() != 9) return false;
  std::string digits(number.substr(0, 8));
  switch (digits[0]) {
    case 'X':
    case 'K':
    case 'L':
    case 'M':
      digits[0] = '0';
      break;
    case 'Y':
      digits[0] = '1';
      break;
    case 'Z':
      digits[0] = '2';
      break;
    default:
      break;
  }
  return all_digits(digits) && number[8] == "TRWAGMYFPDXBNJZSQVHLCKE"[static_cast<size_t>(digits_value(digits)) % 23];
}

bool is_it_fiscal_code(std::string_view number) {
  static constexpr std::string_view layout = "AAAAAA00M00A000A", months = "ABCDEHLMPRST", omocodia = "LMNPQRSTUV";
  static constexpr std::array<int, 26> odd = {1,  0,  5, 7, 9, 13, 15, 17, 19, 21, 2,  4,  18,
                                              20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23};
  if (number.size() != 16) return false;
  std::string plain(number);  // with digits where omocodia put letters
  int sum = 0;
  for (size_t i = 0; i < 16; ++i) {
    bool digit = number[i] >= '0' && number[i] <= '9', letter = number[i] >= 'A' && number[i] <= 'Z';
    if (!digit && !letter) return false;
    if (layout[i] == '0' && letter) {
      size_t value = omocodia.find(number[i]);
      if (value == std::string_view::npos) return false;
      plain[i] = static_cast<char>('0' + value);
    } else if (layout[i] != '0' && digit) {
      return false;
    }
    int value = digit ? number[i] - '0' : number[i] - 'A';
    if (i < 15) sum += i % 2 == 0 ? odd[static_cast<size_t>(value)] : value;
  }
  size_t month = months.find(number[8]);
  if (month == std::string_view::npos || number[15] != 'A' + sum % 26) return false;
  int year = two_digits(plain, 6), day = two_digits(plain, 9);
  return is_date(2000 + year, static_cast<int>(month) + 1, day > 40 ? day - 40 : day);
}

bool is_pl_pesel(std::string_view number) {
  if (!digits_of_length(number, 11)) return false;
  static constexpr std::array<int, 5> centuries = {1900, 2000, 2100, 2200, 1800};
  int month = two_digits(number, 2);
  return weighted_sum(number, {1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1}) % 10 == 0 &&
         is_date(centuries[static_cast<size_t>(month) / 20] + two_digits(number, 0), month % 20, two_digits(number, 4));
}

bool is_in_aadhaar(std::string_view number) {
  return digits_of_length(number, 12) && number[0] >= '2' &&
         !std::equal(number.begin(), number.begin() + 6, number.rbegin()) && verhoeff_holds(number);
}

bool is_fr_nir(std::string_view number) {
  if (number.size() != 15 || !all_digits(number.substr(0, 5)) || !all_digits(number.substr(7))) return false;
  std::string digits(number);
  std::string_view department = number.substr(5, 2);
  if (department == "2A" || department == "2B")  // Corsica
    digits.replace(5, 2, department == "2A" ? "19" : "18");
  if (!all_digits(digits)) return false;
  bool sex = digits[0] == '1' || digits[0] == '2' || digits[0] == '3' || digits[0] == '4' || digits[0] == '7' ||
             digits[0] == '8';
  // 20, 30-42 and 50-99 stand for months that the register does not know.
  int month = two_digits(digits, 3);
  bool known = (month >= 1 && month <= 12) || month == 20 || (month >= 30 && month <= 42) || month >= 50;
  return sex && known && department != "00" &&
         97 - digits_value(std::string_view(digits).substr(0, 13)) % 97 == two_digits(digits, 13);
}

bool is_de_tax_id(std::string_view number) {
  if (!digits_of_length(number, 11) || number[0] == '0') return false;
  std::array<int, 10> count{};
  for (char c : number.substr(0, 10)) ++count[static_cast<size_t>(c - '0')];
  // Ten digits of which exactly one is repeated: nine different ones, or eight when it is there three times.
  auto repeated = std::count_if(count.begin(), count.end(), [](int n) { return n > 1; });
  return repeated == 1 && *std::max_element(count.begin(), count.end()) <= 3 && mod_11_10_holds(number);
}

bool is_nl_bsn(std::string_view number) {
  return digits_of_length(number, 9) && number != "000000000" &&
         weighted_sum(number, {9, 8, 7, 6, 5, 4, 3, 2, -1}) % 11 == 0;
}

bool is_be_national_number(std::string_view number) {
  if (!digits_of_length(number, 11)) return false;
  long long first = digits_value(number.substr(0, 9));
  int check = two_digits(number, 9), year = two_digits(number, 0), month = two_digits(number, 2),
      day = two_digits(number, 4);
  return (97 - first % 97 == check && is_date(1900 + year, month, day)) ||
         (97 - (2'000'000'000 + first) % 97 == check && is_date(2000 + year, month, day));
}

bool is_ch_ahv(std::string_view number) {
  return digits_of_length(number, 13) && number.starts_with("756") &&
         weighted_sum(number, {1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1}) % 10 == 0;
}

bool is_se_personnummer(std::string_view number) {
  if (digits_of_length(number, 12)) {
    int century = two_digits(number, 0);
    if (century < 18 || century > 20 ||
        !is_date(century * 100 + two_digits(number, 2), two_digits(number, 4), two_digits(number, 6)))
      return false;
    number.remove_prefix(2);
  }
  return digits_of_length(number, 10) && is_short_date(number, 0, 2, 4) && luhn_holds(number);
}

bool is_no_fodselsnummer(std::string_view number) {
  if (!digits_of_length(number, 11)) return false;
  std::string date(number.substr(0, 6));
  if (date[0] >= '4' && date[0] <= '7') date[0] = static_cast<char>(date[0] - 4);  // D number
  if (date[2] >= '4' && date[2] <= '5') date[2] = static_cast<char>(date[2] - 4);  // H number
  return is_short_date(date, 4, 2, 0) && weighted_sum(number, {3, 7, 6, 1, 8, 9, 4, 5, 2, 1}) % 11 == 0 &&
         weighted_sum(number, {5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1}) % 11 == 0;
}

bool is_fi_henkilotunnus(std::string_view number) {
  if (number.size() != 11 || !all_digits(number.substr(0, 6)) || !all_digits(number.substr(7, 3))) return false;
  static constexpr std::string_view signs = "+-YXWVUABCDEF";
  size_t sign = signs.find(number[6]);
  if (sign == std::string_view::npos) return false;
  int century = sign == 0 ? 1800 : sign <= 6 ? 1900 : 2000;
  long long individual = digits_value(number.substr(7, 3));
  if (individual < 2 || individual > 899) return false;  // 900 and above are temporary
  long long value = digits_value(number.substr(0, 6)) * 1000 + individual;
  return is_date(century + two_digits(number, 4), two_digits(number, 2), two_digits(number, 0)) &&
         number[10] == "0123456789ABCDEFHJKLMNPRSTUVWXY"[static_cast<size_t>(value % 31)];
}

bool is_br_cpf(std::string_view number) {
  if (!digits_of_length(number, 11) || number.find_first_not_of(number[0]) == std::string_view::npos) return false;
  // A rest of 10 is written 0, so that the check digits are compared after the modulus.
  int first = weighted_sum(number, {10, 9, 8, 7, 6, 5, 4, 3, 2}) * 10 % 11 % 10;
  int second = weighted_sum(number, {11, 10, 9, 8, 7, 6, 5, 4, 3, 2}) * 10 % 11 % 10;
  return number[9] - '0' == first && last_digit(number) == second;
}

bool is_ca_sin(std::string_view number) {
  return digits_of_length(number, 9) && number[0] != '0' && number[0] != '8' && luhn_holds(number);
}

bool is_au_tfn(std::string_view number) {
  return digits_of_length(number, 9) && number != "000000000" &&
         weighted_sum(number, {1, 4, 3, 7, 5, 8, 6, 9, 10}) % 11 == 0;
}

bool is_tr_kimlik(std::string_view number) {
  if (!digits_of_length(number, 11) || number[0] == '0') return false;
  return weighted_sum(number, {3, 1, 3, 1, 3, 1, 3, 1, 3, 1}) % 10 == 0 &&
         weighted_sum(number, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}) % 10 == last_digit(number);
}

bool is_za_id(std::string_view number) {
  return digits_of_length(number, 13) && is_short_date(number, 0, 2, 4) && number[10] <= '1' && luhn_holds(number);
}

bool is_cn_resident_id(std::string_view number) {
  if (number.size() != 18 || !all_digits(number.substr(0, 17))) return false;
  static constexpr std::string_view provinces =
      "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83 91";
  int year = static_cast<int>(digits_value(number.substr(6, 4)));
  int sum = weighted_sum(number, {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2});
  return is_one_of(number.substr(0, 2), provinces) && year >= 1800 && year < 2100 &&
         is_date(year, two_digits(number, 10), two_digits(number, 12)) &&
         number[17] == "10X98765432"[static_cast<size_t>(sum % 11)];
}

bool is_mx_curp(std::string_view number) {
  static constexpr std::string_view layout = "AAAA000000AAAAAA*0", alphabet = "0123456789ABCDEFGHIJKLMN?OPQRSTUVWXYZ",
                                    states =
                                        "AS BC BS CC CH CL CM CS DF DG GR GT HG JC MC MN MS NE NL NT OC PL QR QT "
                                        "SL SP SR TC TL TS VZ YN ZS";
  if (number.size() != 18) return false;
  int sum = 0;
  for (size_t i = 0; i < 18; ++i) {
    bool digit = number[i] >= '0' && number[i] <= '9', letter = number[i] >= 'A' && number[i] <= 'Z';
    if (!(digit && layout[i] != 'A') && !(letter && layout[i] != '0')) return false;
    if (i < 17) sum += static_cast<int>(alphabet.find(number[i])) * static_cast<int>(18 - i);
  }
  int century = number[16] <= '9' ? 1900 : 2000;
  return (number[10] == 'H' || number[10] == 'M') && is_one_of(number.substr(11, 2), states) &&
         is_date(century + two_digits(number, 4), two_digits(number, 6), two_digits(number, 8)) &&
         (10 - sum % 10) % 10 == last_digit(number);
}

}  // namespace retort
