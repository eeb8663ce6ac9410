// Identifiers drawn at random. Check digits are computed here a second time: nothing of data/identifiers decides what
// is valid, but for the Keccak of Ethereum's addresses.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/hash.h"
#include "core/rng.h"
#include "data/identifiers/crypto_address.h"

namespace retort {

namespace samples {

struct Draw {
  Rng rng;

  size_t below(size_t n) { return rng.below(n); }
  int between(int low, int high) { return low + static_cast<int>(below(static_cast<size_t>(high - low + 1))); }
  std::string of(const std::string& alphabet, size_t length) {
    std::string text;
    while (text.size() < length) text += alphabet[below(alphabet.size())];
    return text;
  }
  std::string digits(size_t length) { return of("0123456789", length); }
  std::string letters(size_t length) { return of("ABCDEFGHIJKLMNOPQRSTUVWXYZ", length); }
  std::string pick(const std::vector<std::string>& words) { return words[below(words.size())]; }
};

inline int value_of(char c) { return c <= '9' ? c - '0' : c - 'A' + 10; }

/// Sum of weight times value, weights from the left.
inline int weighted(const std::string& text, std::initializer_list<int> weights) {
  int sum = 0;
  size_t at = 0;
  for (int weight : weights) sum += weight * value_of(text[at++]);
  return sum;
}

/// A number with its last digit chosen so that `sum` of it is 0 modulo `modulus`; empty where no digit does that.
inline std::string closed(std::string body, int modulus, const std::function<int(const std::string&)>& sum) {
  for (char digit = '0'; digit <= '9'; ++digit)
    if (sum(body + digit) % modulus == 0) return body + digit;
  return "";
}

inline int luhn(const std::string& number) {
  int sum = 0;
  for (size_t i = 0; i < number.size(); ++i) {
    const int digit = number[number.size() - 1 - i] - '0';
    sum += i % 2 == 0 ? digit : digit * 2 / 10 + digit * 2 % 10;
  }
  return sum;
}
inline std::string with_luhn(const std::string& body) { return closed(body, 10, luhn); }

/// The rest of a long number in decimal, letters being 10 to 35.
inline int rest(const std::string& number, int modulus) {
  int value = 0;
  for (char c : number) value = (value * (c <= '9' ? 10 : 100) + value_of(c)) % modulus;
  return value;
}

/// "yymmdd" and the like of a day from 1940 to 1999: every letter of y, Y (four digits), m and d in its place.
inline std::string date(Draw& draw, const std::string& form, int add_to_month = 0, int add_to_day = 0) {
  const int year = draw.between(1940, 1999), month = draw.between(1, 12), day = draw.between(1, 28);
  std::string text;
  for (char c : form) {
    if (c == 'Y') text += std::to_string(year);
    if (c == 'y') text += fmt::format("{:02}", year % 100);
    if (c == 'm') text += fmt::format("{:02}", month + add_to_month);
    if (c == 'd') text += fmt::format("{:02}", day + add_to_day);
  }
  return text;
}

/// D5, the group that J. Verhoeff's scheme computes in: i j of a pentagon's turns (0-4) and turns after a flip (5-9).
inline int dihedral(int a, int b) {
  const int turn = (a < 5 ? a + b : a - b + 10) % 5;
  return (a < 5) == (b < 5) ? turn : turn + 5;
}
inline int verhoeff(const std::string& number) {
  static constexpr int permutation[10] = {1, 5, 7, 6, 2, 8, 3, 0, 9, 4};
  int check = 0;
  for (size_t i = 0; i < number.size(); ++i) {
    int digit = number[number.size() - 1 - i] - '0';
    for (size_t times = 0; times < i % 8; ++times) digit = permutation[digit];
    check = dihedral(check, digit);
  }
  return check;
}

inline std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

inline std::string base58(Draw& draw, char version) {
  static const std::string alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  std::string bytes(1, version);
  for (int i = 0; i < 20; ++i) bytes += static_cast<char>(draw.below(256));
  bytes += bytes_of_hex(sha256_hex(bytes_of_hex(sha256_hex(bytes)))).substr(0, 4);
  std::string text, left = bytes;
  for (bool more = true; more;) {  // long division by 58
    int remainder = 0;
    more = false;
    for (char& byte : left) {
      const int value = remainder * 256 + static_cast<unsigned char>(byte);
      byte = static_cast<char>(value / 58);
      remainder = value % 58;
      more |= byte != 0;
    }
    text.insert(text.begin(), alphabet[static_cast<size_t>(remainder)]);
  }
  for (size_t i = 0; bytes[i] == 0; ++i) text.insert(text.begin(), '1');
  return text;
}

/// BIP 173 and 350: a program of 20 or 32 bytes is 32 or 52 groups of five bits.
inline std::string bech32(Draw& draw) {
  static const std::string alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
  const bool taproot = draw.below(2) == 0;
  std::vector<uint32_t> data = {taproot ? 1u : 0u};
  const size_t groups = taproot || draw.below(2) == 0 ? 52 : 32;
  for (size_t i = 0; i < groups; ++i) data.push_back(static_cast<uint32_t>(draw.below(32)));
  if (groups == 52) data.back() &= 16;  // 260 bits for 256
  const auto checked = [](std::vector<uint32_t> values) {
    values.insert(values.begin(), {3, 3, 0, 2, 3});  // "bc"
    uint32_t check = 1;
    for (uint32_t value : values) {
      const uint32_t top = check >> 25;
      check = ((check & 0x1ffffff) << 5) ^ value;
      const uint32_t powers[] = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3};
      for (uint32_t bit = 0; bit < 5; ++bit)
        if (top & (1u << bit)) check ^= powers[bit];
    }
    return check;
  };
  std::vector<uint32_t> padded = data;
  padded.resize(data.size() + 6);
  const uint32_t check = checked(padded) ^ (taproot ? 0x2bc830a3 : 1);
  for (int i = 5; i >= 0; --i) data.push_back(check >> (5 * i) & 31);
  std::string text = "bc1";
  for (uint32_t value : data) text += alphabet[value];
  return text;
}

inline std::string ethereum(Draw& draw) {
  std::string plain = draw.of("0123456789abcdef", 40);
  const auto hash = keccak_256(plain);
  for (size_t i = 0; i < 40; ++i)
    if (plain[i] >= 'a' && (hash[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15) >= 8) plain[i] = static_cast<char>(plain[i] - 32);
  return "0x" + plain;
}

/// An IBAN of a country whose account part is written as in "aaaannnnnnnnnnnnnn".
inline std::string iban(Draw& draw) {
  const std::string form =
      draw.pick({"DEnnnnnnnnnnnnnnnnnn", "GBaaaannnnnnnnnnnnnn", "FRnnnnnnnnnncccccccccccnn", "ESnnnnnnnnnnnnnnnnnnnn",
                 "ITannnnnnnnnncccccccccccc", "NLaaaannnnnnnnnn", "PLnnnnnnnnnnnnnnnnnnnnnnnn", "CHnnnnncccccccccccc",
                 "BEnnnnnnnnnnnn", "NOnnnnnnnnnnn", "SEnnnnnnnnnnnnnnnnnnnn", "MTaaaannnnncccccccccccccccccc"});
  std::string account;
  for (char kind : form.substr(2))
    account += kind == 'n' ? draw.digits(1) : kind == 'a' ? draw.letters(1) : draw.of("0123456789ABCDEFGHXYZ", 1);
  const std::string country = form.substr(0, 2);
  return country + fmt::format("{:02}", 98 - rest(account + country + "00", 97)) + account;
}

inline std::string card(Draw& draw) {
  const std::string prefix = draw.pick({"4", "51", "55", "2221", "2720", "34", "37", "6011", "65", "3528", "62", "36"});
  const size_t length = prefix[0] == '3' && prefix.size() == 2 ? (prefix == "36" ? 14 : 15) : 16;
  return with_luhn(prefix + draw.digits(length - 1 - prefix.size()));
}

inline std::string fiscal_code(Draw& draw) {
  std::string code = draw.letters(6) + date(draw, "y") + draw.of("ABCDEHLMPRST", 1) +
                     fmt::format("{:02}", draw.between(1, 28) + 40 * draw.between(0, 1)) + draw.of("ABCDEFGHIL", 1) +
                     draw.digits(3);
  // The odd places' values, for digits as for the letters A to J; then K to Z.
  static constexpr int odd[26] = {1,  0,  5, 7, 9, 13, 15, 17, 19, 21, 2,  4,  18,
                                  20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23};
  int sum = 0;
  for (size_t i = 0; i < 15; ++i) {
    const int value = code[i] <= '9' ? code[i] - '0' : code[i] - 'A';
    sum += i % 2 == 0 ? odd[value] : value;
  }
  return code + static_cast<char>('A' + sum % 26);
}

inline std::string curp(Draw& draw) {
  const std::string names = "BCDFGHJKLMN", alphabet = "0123456789ABCDEFGHIJKLMN?OPQRSTUVWXYZ";
  const std::string body = draw.of(names, 4) + date(draw, "ymd") + draw.of("HM", 1) +
                           draw.pick({"AS", "BC", "CH", "DF", "JC", "NL", "OC", "YN"}) + draw.of(names, 3) +
                           draw.digits(1);
  int sum = 0;
  for (size_t i = 0; i < 17; ++i) sum += static_cast<int>(alphabet.find(body[i])) * (18 - static_cast<int>(i));
  return body + std::to_string((10 - sum % 10) % 10);
}

inline std::string de_tax_id(Draw& draw) {
  std::string body = "1234567890";
  do draw.rng.shuffle(std::span(body));
  while (body[0] == '0');
  size_t to = 1 + draw.below(9), from = draw.below(10);
  if (from == to) from = 0;
  body[to] = body[from];  // one digit twice, one not at all
  int product = 10;
  for (char c : body) {
    const int sum = (c - '0' + product) % 10;
    product = (sum == 0 ? 10 : sum) * 2 % 11;
  }
  return body + std::to_string((11 - product) % 10);
}

/// One character exchanged for another of its kind, at or after `from`.
inline std::string spoiled(Draw& draw, const std::string& number, size_t from = 0) {
  for (;;) {
    const size_t at = from + draw.below(number.size() - from);
    const char old = number[at];
    char fresh = old;
    if (old >= '0' && old <= '9') fresh = draw.digits(1)[0];
    if (old >= 'A' && old <= 'Z') fresh = draw.letters(1)[0];
    if (old >= 'a' && old <= 'z') fresh = draw.of("acdefghjkmnpqrstuvwxyz", 1)[0];
    if (fresh != old) return number.substr(0, at) + fresh + number.substr(at + 1);
  }
}

}  // namespace samples
}  // namespace retort
