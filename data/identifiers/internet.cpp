#include "data/identifiers/internet.h"

#include <arpa/inet.h>
#include <libpsl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace retort {
namespace {

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The first byte of a letter of Latin-1 to Latin Extended-B in UTF-8, or a byte that goes on.
bool is_accented(char c) {
  auto byte = static_cast<unsigned char>(c);
  return (byte >= 0x80 && byte < 0xc0) || (byte >= 0xc3 && byte <= 0xc9);
}

bool is_local(char c) {
  return is_alnum(c) || is_accented(c) || std::string_view("._%+-~&'").find(c) != std::string_view::npos;
}

bool is_top_level_domain(std::string_view label) {
  // Without the star rule only what the list names is a suffix.
  std::string lower(label);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return psl_is_public_suffix2(psl_builtin(), lower.c_str(), PSL_TYPE_ICANN | PSL_TYPE_NO_STAR_RULE) != 0;
}

/// Whether what lies before `begin` makes the word a URL's user: scheme://user:password@host.
bool is_url_user(std::string_view text, size_t begin) {
  size_t start = begin;
  while (start > 0 && begin - start < 256 &&
         std::string_view("/?# \t\n\"'<>").find(text[start - 1]) == std::string_view::npos)
    --start;
  return start >= 3 && text.substr(start - 3, 3) == "://";
}

/// Where the longest run of labels from `begin` that ends in a top-level domain ends; `begin` when there is none.
size_t domain_end(std::string_view text, size_t begin) {
  std::vector<size_t> ends;  // of labels
  size_t at = begin;
  while (at < text.size() && at - begin <= 253) {
    size_t label = at;
    while (at < text.size() && at - label <= 63 && (is_alnum(text[at]) || is_accented(text[at]) || text[at] == '-'))
      ++at;
    if (at == label || at - label > 63 || text[label] == '-' || text[at - 1] == '-') break;
    ends.push_back(at);
    if (at == text.size() || text[at] != '.') break;
    ++at;
  }
  for (; ends.size() >= 2; ends.pop_back())
    if (is_top_level_domain(text.substr(ends[ends.size() - 2] + 1, ends.back() - ends[ends.size() - 2] - 1)))
      return ends.back();
  return begin;
}

uint32_t ipv4_value(const in_addr& address) { return ntohl(address.s_addr); }

struct Ipv4Block {
  uint32_t address;
  int bits;
};

// IANA IPv4 Special-Purpose Address Registry: what is not globally reachable, and multicast.
constexpr Ipv4Block ipv4_not_global[] = {
    {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
    {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0a80000, 16}, {0xc6120000, 15},
    {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 4},  {0xf0000000, 4},
};

bool is_global(uint32_t address) {
  if (address == 0xc0000009 || address == 0xc000000a) return true;  // 192.0.0.9 and .10 in a block that is not
  return std::none_of(std::begin(ipv4_not_global), std::end(ipv4_not_global), [&](const Ipv4Block& block) {
    return address >> (32 - block.bits) == block.address >> (32 - block.bits);
  });
}

/// Global unicast is 2000::/3; of it IANA's registry takes out 2001::/23 but for a few, documentation and 6to4.
bool is_global(const in6_addr& address) {
  auto group = [&](size_t i) { return address.s6_addr[2 * i] << 8 | address.s6_addr[2 * i + 1]; };
  if (group(0) >> 13 != 1) return false;
  if (group(0) == 0x2002 || (group(0) == 0x2001 && group(1) == 0xdb8)) return false;
  if (group(0) == 0x3fff && group(1) < 0x1000) return false;
  if (group(0) == 0x2001 && group(1) < 0x200)  // AMT, AS112, ORCHIDv2 and drone identifiers are reachable
    return group(1) == 3 || (group(1) == 4 && group(2) == 0x112) || (group(1) >= 0x20 && group(1) < 0x40);
  return true;
}

}  // namespace

std::optional<std::pair<size_t, size_t>> email_at(std::string_view text, size_t at) {
  size_t begin = at;
  while (begin > 0 && at - begin < 64 && is_local(text[begin - 1])) --begin;
  if (begin > 0 && at - begin == 64 && is_local(text[begin - 1])) return {};
  while (begin < at && !is_alnum(text[begin]) && !(static_cast<unsigned char>(text[begin]) >= 0xc3) &&
         text[begin] != '_')
    ++begin;
  std::string_view local = text.substr(begin, at - begin);
  if (local.empty() || local.back() == '.' || local.find("..") != std::string_view::npos) return {};
  size_t end = domain_end(text, at + 1);
  if (end == at + 1 || is_url_user(text, begin)) return {};
  if (local == "git" && end < text.size() && (text[end] == ':' || text[end] == '/')) return {};
  return std::pair{begin, end};
}

bool is_ipv4(std::string_view address, bool global) {
  in_addr value{};
  if (address.size() > 15 || inet_pton(AF_INET, std::string(address).c_str(), &value) != 1) return false;
  return !global || is_global(ipv4_value(value));
}

bool is_ipv6(std::string_view address, bool global) {
  in6_addr value{};
  if (address.size() > 45 || inet_pton(AF_INET6, std::string(address).c_str(), &value) != 1) return false;
  return !global || is_global(value);
}

}  // namespace retort
