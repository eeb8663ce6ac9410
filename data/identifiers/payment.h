// Payment cards and bank accounts.
#pragma once

#include <string_view>

namespace retort {

/// A card number without separators: Luhn, and a length that an issuer with its prefix uses (ISO/IEC 7812; Visa,
/// Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, Maestro, Mir, RuPay, Troy, Verve).
bool is_payment_card(std::string_view digits);

/// An IBAN without separators in upper case: its country's length and layout (SWIFT IBAN registry, release 101) and
/// ISO 7064 MOD 97-10.
bool is_iban(std::string_view iban);
/// The length of an IBAN of the country with these two letters, 0 when it has none.
size_t iban_length(std::string_view country);

}  // namespace retort
