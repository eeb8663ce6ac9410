#include "data/identifiers/payment.h"

#include <algorithm>
#include <string>

#include "data/identifiers/checksum.h"

namespace retort {
namespace {

struct Issuer {
  int digits;       ///< of the prefix
  int first, last;  ///< prefixes, inclusive
  size_t shortest, longest;
};

// Two ranges may overlap: a number is a card when one of them takes it.
constexpr Issuer issuers[] = {
    {1, 4, 4, 13, 13},            // Visa
    {1, 4, 4, 16, 16},            //
    {1, 4, 4, 19, 19},            //
    {2, 51, 55, 16, 16},          // Mastercard
    {4, 2221, 2720, 16, 16},      //
    {2, 34, 34, 15, 15},          // American Express
    {2, 37, 37, 15, 15},          //
    {3, 300, 305, 14, 19},        // Diners Club
    {4, 3095, 3095, 14, 19},      //
    {2, 36, 36, 14, 19},          //
    {2, 38, 39, 14, 19},          //
    {4, 6011, 6011, 16, 19},      // Discover
    {3, 644, 649, 16, 19},        //
    {2, 65, 65, 16, 19},          //
    {4, 3528, 3589, 16, 19},      // JCB
    {2, 62, 62, 16, 19},          // UnionPay
    {2, 81, 81, 16, 19},          // UnionPay and RuPay
    {2, 50, 50, 12, 19},          // Maestro
    {2, 56, 58, 12, 19},          //
    {4, 6304, 6304, 12, 19},      //
    {4, 6759, 6763, 12, 19},      //
    {6, 676770, 676774, 12, 19},  //
    {4, 2200, 2204, 16, 19},      // Mir
    {2, 60, 60, 16, 16},          // RuPay
    {2, 82, 82, 16, 16},          //
    {3, 353, 353, 16, 16},        //
    {3, 356, 356, 16, 16},        //
    {4, 9792, 9792, 16, 16},      // Troy
    {6, 506099, 506198, 16, 19},  // Verve
};

struct IbanLayout {
  const char* country;
  const char* account;  ///< "4a14n": 4 upper-case letters, 14 digits; c is either
};

constexpr IbanLayout iban_layouts[] = {
    {"AD", "8n12c"},   {"AE", "19n"},    {"AL", "8n16c"},    {"AT", "16n"},      {"AZ", "4a20c"},    {"BA", "16n"},
    {"BE", "12n"},     {"BG", "4a6n8c"}, {"BH", "4a14c"},    {"BI", "23n"},      {"BR", "23n1a1c"},  {"BY", "4c4n16c"},
    {"CH", "5n12c"},   {"CR", "18n"},    {"CY", "8n16c"},    {"CZ", "20n"},      {"DE", "18n"},      {"DJ", "23n"},
    {"DK", "14n"},     {"DO", "4c20n"},  {"EE", "16n"},      {"EG", "25n"},      {"ES", "20n"},      {"FI", "14n"},
    {"FK", "2a12n"},   {"FO", "14n"},    {"FR", "10n11c2n"}, {"GB", "4a14n"},    {"GE", "2a16n"},    {"GI", "4a15c"},
    {"GL", "14n"},     {"GR", "7n16c"},  {"GT", "24c"},      {"HN", "4a20n"},    {"HR", "17n"},      {"HU", "24n"},
    {"IE", "4a14n"},   {"IL", "19n"},    {"IQ", "4a15n"},    {"IS", "22n"},      {"IT", "1a10n12c"}, {"JO", "4a4n18c"},
    {"KW", "4a22c"},   {"KZ", "3n13c"},  {"LB", "4n20c"},    {"LC", "4a24c"},    {"LI", "5n12c"},    {"LT", "16n"},
    {"LU", "3n13c"},   {"LV", "4a13c"},  {"LY", "21n"},      {"MC", "10n11c2n"}, {"MD", "20c"},      {"ME", "18n"},
    {"MK", "3n10c2n"}, {"MN", "16n"},    {"MR", "23n"},      {"MT", "4a5n18c"},  {"MU", "4a19n3a"},  {"NI", "4a20n"},
    {"NL", "4a10n"},   {"NO", "11n"},    {"OM", "3n16c"},    {"PK", "4a16c"},    {"PL", "24n"},      {"PS", "4a21c"},
    {"PT", "21n"},     {"QA", "4a21c"},  {"RO", "4a16c"},    {"RS", "18n"},      {"RU", "14n15c"},   {"SA", "2n18c"},
    {"SC", "4a20n3a"}, {"SD", "14n"},    {"SE", "20n"},      {"SI", "15n"},      {"SK", "20n"},      {"SM", "1a10n12c"},
    {"SO", "19n"},     {"ST", "21n"},    {"SV", "4a20n"},    {"TL", "19n"},      {"TN", "20n"},      {"TR", "6n16c"},
    {"UA", "6n19c"},   {"VA", "18n"},    {"VG", "4a16n"},    {"XK", "16n"},      {"YE", "4a4n18c"}};

const IbanLayout* layout_of(std::string_view country) {
  auto found = std::lower_bound(std::begin(iban_layouts), std::end(iban_layouts), country,
                                [](const IbanLayout& entry, std::string_view name) { return entry.country < name; });
  return found != std::end(iban_layouts) && found->country == country ? found : nullptr;
}

bool fits(char c, char kind) {
  bool digit = c >= '0' && c <= '9', letter = c >= 'A' && c <= 'Z';
  return kind == 'n' ? digit : kind == 'a' ? letter : digit || letter;
}

/// Calls use(length, kind) for each part of a layout; stops when it answers false.
template <typename Use>
bool each_part(const char* layout, Use use) {
  for (; *layout; ++layout) {
    size_t length = 0;
    for (; *layout >= '0' && *layout <= '9'; ++layout) length = length * 10 + static_cast<size_t>(*layout - '0');
    if (!use(length, *layout)) return false;
  }
  return true;
}

}  // namespace

bool is_payment_card(std::string_view digits) {
  if (digits.size() < 12 || digits.size() > 19 || !all_digits(digits)) return false;
  return std::any_of(std::begin(issuers), std::end(issuers),
                     [&](const Issuer& issuer) {
                       long long prefix = digits_value(digits.substr(0, static_cast<size_t>(issuer.digits)));
                       return prefix >= issuer.first && prefix <= issuer.last && digits.size() >= issuer.shortest &&
                              digits.size() <= issuer.longest;
                     }) &&
         luhn_holds(digits);
}

size_t iban_length(std::string_view country) {
  const IbanLayout* layout = layout_of(country);
  if (!layout) return 0;
  size_t sum = 4;  // country and check digits
  each_part(layout->account, [&](size_t length, char) { return sum += length, true; });
  return sum;
}

bool is_iban(std::string_view iban) {
  if (iban.size() < 5) return false;
  const IbanLayout* layout = layout_of(iban.substr(0, 2));
  if (!layout || !all_digits(iban.substr(2, 2))) return false;
  size_t at = 4;
  bool laid_out = each_part(layout->account, [&](size_t length, char kind) {
    for (size_t end = at + length; at < end; ++at)
      if (at >= iban.size() || !fits(iban[at], kind)) return false;
    return true;
  });
  if (!laid_out || at != iban.size()) return false;
  // Check digits 00, 01 and 99 stand for 97, 98 and 02, which are the ones that banks write.
  std::string_view check = iban.substr(2, 2);
  if (check < "02" || check > "98") return false;
  return mod_97(std::string(iban.substr(4)) + std::string(iban.substr(0, 4))) == 1;
}

}  // namespace retort
