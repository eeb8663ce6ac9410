#include "data/identifiers/crypto_address.h"

#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace retort {
namespace {

/// Keccak-f[1600] (FIPS 202, section 3): 24 rounds on 5 x 5 lanes, lane (x, y) at x + 5 y.
void keccak_permute(std::array<uint64_t, 25>& lanes) {
  static constexpr uint64_t constants[24] = {
      0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
      0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
      0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
      0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
      0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};
  // The order in which pi visits the lanes from lane 1, and by how much rho turns each.
  static constexpr uint8_t path[24] = {10, 7,  11, 17, 18, 3, 5,  16, 8,  21, 24, 4,
                                       15, 23, 19, 13, 12, 2, 20, 14, 22, 9,  6,  1};
  static constexpr uint8_t turns[24] = {1,  3,  6,  10, 15, 21, 28, 36, 45, 55, 2,  14,
                                        27, 41, 56, 8,  25, 43, 62, 18, 39, 61, 20, 44};
  for (uint64_t constant : constants) {
    std::array<uint64_t, 5> column{};
    for (size_t i = 0; i < 25; ++i) column[i % 5] ^= lanes[i];
    for (size_t i = 0; i < 25; ++i) lanes[i] ^= column[(i + 4) % 5] ^ std::rotl(column[(i + 1) % 5], 1);
    uint64_t moving = lanes[1];
    for (size_t i = 0; i < 24; ++i) moving = std::exchange(lanes[path[i]], std::rotl(moving, turns[i]));
    for (size_t row = 0; row < 25; row += 5) {
      std::array<uint64_t, 5> old{};
      std::copy_n(lanes.begin() + static_cast<std::ptrdiff_t>(row), 5, old.begin());
      for (size_t x = 0; x < 5; ++x) lanes[row + x] = old[x] ^ (~old[(x + 1) % 5] & old[(x + 2) % 5]);
    }
    lanes[0] ^= constant;
  }
}

void absorb(std::array<uint64_t, 25>& lanes, const unsigned char* block, size_t lane_count) {
  for (size_t i = 0; i < lane_count; ++i)
    for (size_t byte = 0; byte < 8; ++byte) lanes[i] ^= uint64_t{block[i * 8 + byte]} << (8 * byte);
  keccak_permute(lanes);
}

bool base58_check_holds(std::string_view address) {
  static constexpr std::string_view alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  std::array<uint8_t, 25> bytes{};  // version, hash, first four bytes of SHA-256 twice
  for (char c : address) {
    size_t carry = alphabet.find(c);
    if (carry == std::string_view::npos) return false;
    for (auto byte = bytes.rbegin(); byte != bytes.rend(); ++byte) {
      carry += size_t{58} * *byte;
      *byte = static_cast<uint8_t>(carry & 0xff);
      carry >>= 8;
    }
    if (carry) return false;
  }
  // A leading zero byte is written as one 1 and as nothing else.
  auto zeros = std::find_if(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte != 0; }) - bytes.begin();
  if (std::min(address.find_first_not_of('1'), address.size()) != static_cast<size_t>(zeros)) return false;
  if (bytes[0] != 0 && bytes[0] != 5 && bytes[0] != 111 && bytes[0] != 196) return false;
  std::array<uint8_t, SHA256_DIGEST_LENGTH> once{}, twice{};
  SHA256(bytes.data(), 21, once.data());
  SHA256(once.data(), once.size(), twice.data());
  return std::memcmp(twice.data(), bytes.data() + 21, 4) == 0;
}

/// BIP 173: the polynomial over the human-readable part and the data; 1 for bech32, 0x2bc830a3 for bech32m.
uint32_t bech32_polymod(std::string_view human, const std::vector<uint8_t>& data) {
  static constexpr std::array<uint32_t, 5> generator = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3};
  uint32_t check = 1;
  auto take = [&](uint32_t value) {
    uint32_t top = check >> 25;
    check = (check & 0x1ffffff) << 5 ^ value;
    for (size_t i = 0; i < 5; ++i)
      if (top >> i & 1) check ^= generator[i];
  };
  for (char c : human) take(static_cast<uint32_t>(c) >> 5);
  take(0);
  for (char c : human) take(static_cast<uint32_t>(c) & 31);
  for (uint8_t value : data) take(value);
  return check;
}

bool is_segwit_address(std::string_view address) {
  static constexpr std::string_view alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
  std::string lower(address);
  bool has_lower = false, has_upper = false;
  for (char& c : lower) {
    has_lower |= c >= 'a' && c <= 'z';
    has_upper |= c >= 'A' && c <= 'Z';
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if ((has_lower && has_upper) || lower.size() < 11 || lower.size() > 90 || lower[2] != '1') return false;
  std::string_view human = std::string_view(lower).substr(0, 2);
  if (human != "bc" && human != "tb") return false;
  std::vector<uint8_t> data;
  for (char c : std::string_view(lower).substr(3)) {
    size_t value = alphabet.find(c);
    if (value == std::string_view::npos) return false;
    data.push_back(static_cast<uint8_t>(value));
  }
  uint32_t check = bech32_polymod(human, data);
  if (data[0] > 16 || check != (data[0] == 0 ? 1 : 0x2bc830a3)) return false;
  // The program: groups of five bits between the version and the check's six; what is left must be under five zeros.
  size_t bits = 5 * (data.size() - 7), length = bits / 8;
  uint8_t last = data[data.size() - 7];
  if (bits % 8 >= 5 || (last & ((1u << bits % 8) - 1)) != 0) return false;
  return data[0] == 0 ? length == 20 || length == 32 : length >= 2 && length <= 40;
}

}  // namespace

std::array<uint8_t, 32> keccak_256(std::string_view bytes) {
  constexpr size_t rate = 136;
  std::array<uint64_t, 25> lanes{};
  for (; bytes.size() >= rate; bytes.remove_prefix(rate))
    absorb(lanes, reinterpret_cast<const unsigned char*>(bytes.data()), rate / 8);
  std::array<unsigned char, rate> rest{};
  std::copy(bytes.begin(), bytes.end(), rest.begin());
  rest[bytes.size()] ^= 0x01;
  rest[rate - 1] ^= 0x80;
  absorb(lanes, rest.data(), rate / 8);
  std::array<uint8_t, 32> digest{};
  for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<uint8_t>(lanes[i / 8] >> (8 * (i % 8)));
  return digest;
}

bool is_bitcoin_address(std::string_view address) {
  if (address.size() < 14) return false;
  if (address.size() >= 26 && address.size() <= 35 && base58_check_holds(address)) return true;
  return is_segwit_address(address);
}

bool is_ethereum_address(std::string_view address) {
  if (address.size() != 42 || !address.starts_with("0x")) return false;
  std::string lower;
  bool has_lower = false, has_upper = false, zero = true;
  for (char c : address.substr(2)) {
    bool small = c >= 'a' && c <= 'f', large = c >= 'A' && c <= 'F';
    if (!small && !large && !(c >= '0' && c <= '9')) return false;
    has_lower |= small;
    has_upper |= large;
    zero &= c == '0';
    lower += large ? static_cast<char>(c - 'A' + 'a') : c;
  }
  if (zero || !has_lower || !has_upper) return !zero;
  std::array<uint8_t, 32> hash = keccak_256(lower);
  for (size_t i = 0; i < 40; ++i) {
    bool upper = (hash[i / 2] >> (i % 2 ? 0 : 4) & 8) != 0;
    char c = address[2 + i];
    if ((c >= 'a' && upper) || (c >= 'A' && c <= 'F' && !upper)) return false;
  }
  return true;
}

}  // namespace retort
