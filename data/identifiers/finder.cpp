#include "data/identifiers/finder.h"

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "data/identifiers/crypto_address.h"
#include "data/identifiers/internet.h"
#include "data/identifiers/number_rules.h"
#include "data/identifiers/phone.h"

namespace retort {
namespace {

// Nothing that is looked for is longer than a bech32 address of 90 characters.
constexpr size_t kMaxIdentifier = 96;
// Digits further apart belong to different clusters; a cluster is cut when it gets longer than kMaxCluster, and the
// next one overlaps it.
constexpr size_t kMaxGap = 12, kMaxCluster = 4096;
constexpr size_t kContextBefore = 64, kContextAfter = 32;

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'); }

/// The separator at `at` and its length in bytes; 0 when there is none. Typographic spaces and hyphens count as plain.
struct Separator {
  char kind = 0;
  size_t bytes = 0;
};
Separator separator_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  switch (text[at]) {
    case ' ':
    case '-':
    case '.':
    case '/':
    case '+':
    case ':':
    case '(':
    case ')':
      return {text[at], 1};
    case '\xc2':
      return text.substr(at, 2) == "\xc2\xa0" ? Separator{' ', 2} : Separator{};  // no-break space
    case '\xe2':
      break;
    default:
      return {};
  }
  std::string_view three = text.substr(at, 3);
  for (const char* space : {"\xe2\x80\x87", "\xe2\x80\x89", "\xe2\x80\xaf"})  // figure, thin, narrow no-break
    if (three == space) return {' ', 3};
  for (const char* hyphen : {"\xe2\x80\x90", "\xe2\x80\x91", "\xe2\x80\x92", "\xe2\x80\x93", "\xe2\x88\x92"})
    if (three == hyphen) return {'-', 3};
  return {};
}

/// Letters and digits without anything between, and the separator before, 0 when more or something else stands there.
struct Group {
  size_t begin, end;
  char before;
  bool has_digit, only_digits;
  size_t size() const { return end - begin; }
};

/// Where digits stand close together.
struct Cluster {
  size_t begin, end;
  size_t digits = 0, dots = 0, colons = 0, longest_word = 0;
};

/// From the word around the digit at `at` to the last word with a digit at most kMaxGap bytes after the one before.
Cluster cluster_at(std::string_view text, size_t at) {
  Cluster cluster{at, at};
  while (cluster.begin > 0 && at - cluster.begin < kMaxIdentifier && is_alnum(text[cluster.begin - 1])) --cluster.begin;
  size_t word = cluster.begin, last_digit = at;
  for (size_t i = at;;) {
    for (; i < text.size() && is_alnum(text[i]); ++i)
      if (is_digit(text[i])) ++cluster.digits, last_digit = i;
    if (last_digit >= word) cluster.end = i, cluster.longest_word = std::max(cluster.longest_word, i - word);
    Separator separator = separator_at(text, i);
    if (!separator.kind || i - last_digit > kMaxGap || i - cluster.begin > kMaxCluster) return cluster;
    cluster.dots += separator.kind == '.';
    cluster.colons += separator.kind == ':';
    i += separator.bytes;
    word = i;
  }
}

/// The groups of a cluster, with up to two short ones before and one after that may belong to its numbers.
std::vector<Group> groups_of(std::string_view text, const Cluster& cluster) {
  size_t begin = cluster.begin;
  for (int more = 0; more < 2; ++more) {
    size_t end = begin;
    for (size_t bytes : {size_t{1}, size_t{2}, size_t{3}})
      if (bytes <= begin && separator_at(text, begin - bytes).bytes == bytes) end = begin - bytes;
    size_t start = end;
    while (start > 0 && end - start < 8 && is_alnum(text[start - 1])) --start;
    if (start == end || end == begin || end - start == 8) break;
    begin = start;
  }
  std::vector<Group> groups;
  Separator separator;
  for (size_t at = begin; at < text.size();) {
    Group group{at, at, separator.kind, false, true};
    for (; group.end < text.size() && is_alnum(text[group.end]); ++group.end) {
      group.has_digit |= is_digit(text[group.end]);
      group.only_digits &= is_digit(text[group.end]);
    }
    at = group.end;
    if (group.size() > 0) {
      groups.push_back(group);
      if (group.begin >= cluster.end) break;
      separator = separator_at(text, at);
      at += std::max<size_t>(separator.bytes, 1);
    } else {
      if (at >= cluster.end) break;
      separator = {};
      ++at;
    }
  }
  return groups;
}

/// Whether one of the words (separated by '|', in lower case) begins in text[begin - before, end + after).
bool has_context(std::string_view text, size_t begin, size_t end, std::string_view words, size_t before, size_t after) {
  auto look = [&](size_t from, size_t to) {
    std::string lower(text.substr(from, to - from));
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    for (size_t at = 0; at < words.size();) {
      size_t stop = std::min(words.find('|', at), words.size());
      std::string_view word = words.substr(at, stop - at);
      for (size_t found = lower.find(word); found != std::string::npos; found = lower.find(word, found + 1)) {
        size_t next = found + word.size();
        // A short word must be a whole one: "sin" is not in "since".
        bool whole = word.size() > 4 || next == lower.size() || !is_alnum(lower[next]);
        if (whole && (found == 0 || !is_alnum(lower[found - 1]))) return true;
      }
      at = stop + 1;
    }
    return false;
  };
  return look(begin - std::min(begin, before), begin) || look(end, std::min(text.size(), end + after));
}

/// A form as a list of group sizes and the separators before them.
struct CompiledForm {
  size_t rule;
  bool needs_context, grouped;
  std::vector<std::pair<char, size_t>> parts;
};

CompiledForm compiled(size_t rule, const NumberForm& form) {
  CompiledForm result{rule, form.needs_context, false, {}};
  char separator = 0;
  for (char c : form.pattern) {
    if (c != '#') {
      separator = c;
      result.grouped = true;
    } else if (result.parts.empty() || separator) {
      result.parts.push_back({std::exchange(separator, 0), 1});
    } else {
      ++result.parts.back().second;
    }
  }
  return result;
}

/// Whether a text is the number of a rule: by its form and check alone, or with a word of its scheme beside it.
enum class Likeness { none, form, named };

constexpr const char* phone_context =
    "phone|tel|telephone|call|calling|fax|mobil|cell|cellphone|whatsapp|sms|dial|contact|telefon|telefax|handy|"
    "rufnummer|celular|cellular|appelez|movil|fon|text me";
constexpr const char* book_context = "isbn|issn|doi";
constexpr const char* version_context = "version|release|ver|v|rev|revision|build|firmware|section|chapter|clause";

}  // namespace

const std::vector<IdentifierRule>& identifier_rules() {
  static const std::vector<IdentifierRule> rules = [] {
    std::vector<IdentifierRule> list;
    for (const NumberRule& rule : number_rules()) list.push_back({rule.name, rule.text});
    list.push_back({"bitcoin", "Bitcoin address: base58check, bech32 or bech32m"});
    list.push_back({"ethereum", "Ethereum address: EIP-55 where it has mixed case"});
    list.push_back({"ip", "IPv4 or IPv6 address, by default only those that are reachable worldwide"});
    list.push_back({"email", "e-mail address under a top-level domain that exists"});
    list.push_back({"phone", "telephone number that libphonenumber calls valid; bare digits only with a word nearby"});
    return list;
  }();
  return rules;
}

struct IdentifierFinder::Plan {
  std::vector<std::string> regions;
  bool global_ip_only;
  std::vector<bool> wanted;                            ///< by rule
  std::array<std::vector<CompiledForm>, 40> by_first;  ///< by the size of their first group
  size_t bitcoin, ethereum, ip, email, phone;

  void find_emails(std::string_view text, std::vector<FoundSpan>& found) const;
  void find_numbers(std::string_view text, const std::vector<Group>& groups, std::vector<FoundSpan>& found,
                    std::vector<FoundSpan>& named) const;
  Likeness likeness(std::string_view text, const std::vector<Group>& groups, size_t first,
                    const CompiledForm& form) const;
  std::optional<FoundSpan> single_group(std::string_view text, const Group& group) const;
  std::optional<FoundSpan> ipv4(std::string_view text, const std::vector<Group>& groups, size_t first) const;
  void find_ipv6(std::string_view text, const Cluster& cluster, std::vector<FoundSpan>& found) const;
  void find_phones(std::string_view text, const Cluster& cluster, std::vector<FoundSpan>& found) const;
};

IdentifierFinder::~IdentifierFinder() = default;

IdentifierFinder::IdentifierFinder(const IdentifierOptions& options) {
  auto plan = std::make_unique<Plan>();
  const std::vector<IdentifierRule>& rules = identifier_rules();
  auto index_of = [&](std::string_view name) {
    auto found =
        std::find_if(rules.begin(), rules.end(), [&](const IdentifierRule& rule) { return rule.name == name; });
    if (found == rules.end()) fail(Exit::internal, "no identifier is called \"{}\"", name);
    return static_cast<size_t>(found - rules.begin());
  };
  plan->wanted.assign(rules.size(), options.rules.empty());
  for (const std::string& name : options.rules) plan->wanted[index_of(name)] = true;
  plan->regions = options.regions;
  plan->global_ip_only = options.global_ip_only;
  plan->bitcoin = index_of("bitcoin"), plan->ethereum = index_of("ethereum"), plan->ip = index_of("ip");
  plan->email = index_of("email"), plan->phone = index_of("phone");
  for (size_t rule = 0; rule < number_rules().size(); ++rule)
    for (const NumberForm& form : number_rules()[rule].forms)
      if (plan->wanted[rule]) {
        CompiledForm entry = compiled(rule, form);
        plan->by_first[entry.parts.front().second].push_back(std::move(entry));
      }
  plan_ = std::move(plan);
}

void IdentifierFinder::Plan::find_emails(std::string_view text, std::vector<FoundSpan>& found) const {
  size_t taken = 0;
  for (size_t at = text.find('@'); at != std::string_view::npos; at = text.find('@', at + 1)) {
    auto span = email_at(text, at);
    if (!span || span->first < taken) continue;
    found.push_back({email, span->first, span->second});
    taken = span->second;
  }
}

Likeness IdentifierFinder::Plan::likeness(std::string_view text, const std::vector<Group>& groups, size_t first,
                                          const CompiledForm& form) const {
  size_t count = form.parts.size();
  if (first + count > groups.size()) return Likeness::none;
  for (size_t i = 0; i < count; ++i)
    if (groups[first + i].size() != form.parts[i].second || (i > 0 && groups[first + i].before != form.parts[i].first))
      return Likeness::none;
  const NumberRule& rule = number_rules()[form.rule];
  size_t begin = groups[first].begin, end = groups[first + count - 1].end;
  std::string number;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0 && rule.with_separators) number += form.parts[i].first;
    number += text.substr(groups[first + i].begin, groups[first + i].size());
  }
  if (rule.lower_case && std::none_of(number.begin(), number.end(), [](char c) { return c >= 'A' && c <= 'Z'; }))
    for (char& c : number)
      if (c >= 'a') c = static_cast<char>(c - 'a' + 'A');
  if (!rule.valid(number)) return Likeness::none;
  // Part of something longer: digits follow after a point or a hyphen, or a telephone number's plus stands before.
  auto goes_on = [&](char separator, const Group& neighbour) {
    return neighbour.has_digit && (separator == '-' || separator == '.' || separator == '/');
  };
  auto next_in_row = [&](char separator, const Group& neighbour) { return separator == ' ' && neighbour.only_digits; };
  const Group* before = first > 0 ? &groups[first - 1] : nullptr;
  const Group* after = first + count < groups.size() ? &groups[first + count] : nullptr;
  if (begin > 0 && text[begin - 1] == '+') return Likeness::none;
  if ((before && goes_on(groups[first].before, *before)) || (after && goes_on(after->before, *after)))
    return Likeness::none;
  bool in_context = rule.context[0] != 0 && has_context(text, begin, end, rule.context, kContextBefore, kContextAfter);
  if (in_context) return Likeness::named;
  if (form.needs_context) return Likeness::none;
  // A rule that wants a word beside its bare digits trusts its layout only where no more digits stand beside it.
  bool in_row = form.grouped && ((before && next_in_row(groups[first].before, *before)) ||
                                 (after && next_in_row(after->before, *after)));
  return !in_row || rule.context[0] == 0 ? Likeness::form : Likeness::none;
}

std::optional<FoundSpan> IdentifierFinder::Plan::single_group(std::string_view text, const Group& group) const {
  if (group.size() < 14 || group.size() > kMaxIdentifier) return {};
  std::string_view word = text.substr(group.begin, group.size());
  if (wanted[bitcoin] && is_bitcoin_address(word)) return FoundSpan{bitcoin, group.begin, group.end};
  if (wanted[ethereum] && is_ethereum_address(word)) return FoundSpan{ethereum, group.begin, group.end};
  return {};
}

std::optional<FoundSpan> IdentifierFinder::Plan::ipv4(std::string_view text, const std::vector<Group>& groups,
                                                      size_t first) const {
  if (!wanted[ip] || first + 4 > groups.size() || (first > 0 && groups[first].before == '.')) return {};
  for (size_t i = first; i < first + 4; ++i)
    if (!groups[i].only_digits || groups[i].size() > 3 || (i > first && groups[i].before != '.')) return {};
  size_t begin = groups[first].begin, end = groups[first + 3].end;
  bool goes_on = first + 4 < groups.size() && groups[first + 4].before == '.' && groups[first + 4].has_digit;
  if (goes_on || !is_ipv4(text.substr(begin, end - begin), global_ip_only)) return {};
  if (has_context(text, begin, end, version_context, 12, 0)) return {};
  return FoundSpan{ip, begin, end};
}

void IdentifierFinder::Plan::find_ipv6(std::string_view text, const Cluster& cluster,
                                       std::vector<FoundSpan>& found) const {
  auto belongs = [](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') || c == ':' || c == '.'; };
  size_t at = cluster.begin;
  while (at > 0 && cluster.begin - at < 45 && belongs(text[at - 1])) --at;
  while (at < cluster.end) {
    size_t begin = at;
    while (at < text.size() && at - begin < kMaxIdentifier && belongs(text[at])) ++at;
    size_t end = at;
    if (end > begin && text[end - 1] == '.') --end;
    if (end > begin + 1 && text[end - 1] == ':' && text[end - 2] != ':') --end;
    bool apart = (begin == 0 || !is_alnum(text[begin - 1])) && (at == text.size() || !is_alnum(text[at]));
    if (apart &&
        std::count(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end),
                   ':') >= 2 &&
        is_ipv6(text.substr(begin, end - begin), global_ip_only))
      found.push_back({ip, begin, end});
    while (at < cluster.end && !belongs(text[at])) ++at;
  }
}

void IdentifierFinder::Plan::find_numbers(std::string_view text, const std::vector<Group>& groups,
                                          std::vector<FoundSpan>& found, std::vector<FoundSpan>& named) const {
  for (size_t first = 0; first < groups.size(); ++first) {
    const Group& group = groups[first];
    if (group.size() < by_first.size())
      for (const CompiledForm& form : by_first[group.size()])
        if (const Likeness like = likeness(text, groups, first, form); like != Likeness::none)
          (like == Likeness::named ? named : found)
              .push_back({form.rule, group.begin, groups[first + form.parts.size() - 1].end});
    if (auto address = single_group(text, group)) found.push_back(*address);
    if (auto address = ipv4(text, groups, first)) found.push_back(*address);
  }
}

/// Dates and spans of years: "12.05.1998", "1995-1998".
bool is_calendar(const std::vector<std::string_view>& groups) {
  size_t years = 0, small = 0;
  for (std::string_view group : groups) {
    years += group.size() == 4 && (group[0] == '1' || group[0] == '2');
    small += group.size() <= 2;
  }
  return (groups.size() == 3 && years == 1 && small == 2) || (groups.size() == 2 && years == 2);
}

void IdentifierFinder::Plan::find_phones(std::string_view text, const Cluster& cluster,
                                         std::vector<FoundSpan>& found) const {
  static const std::vector<std::string> international;
  size_t at = cluster.begin;
  while (at > 0 && cluster.begin - at < 2 && (text[at - 1] == '+' || text[at - 1] == '(')) --at;
  while (at < cluster.end) {
    while (at < cluster.end && !is_digit(text[at]) && text[at] != '+' && text[at] != '(') ++at;
    // A chain of digits and separators without letters.
    size_t begin = at, end = at, digits = 0;
    std::vector<std::string_view> groups;
    std::string separators;
    while (at < text.size() && at - begin < kMaxIdentifier) {
      if (Separator separator = separator_at(text, at); separator.kind && separator.kind != ':') {
        separators += separator.kind;
        at += separator.bytes;
      } else if (is_digit(text[at])) {
        size_t start = at;
        while (at < text.size() && is_digit(text[at])) ++at;
        groups.push_back(text.substr(start, at - start));
        digits += at - start;
        end = at;
      } else {
        break;
      }
    }
    if (digits < 7 || is_calendar(groups)) {
      at = std::max(at, begin + 1);
      continue;
    }
    bool plus = separators.find('+') != std::string::npos;
    bool fraction = groups.size() == 2 && separators.substr(0, 1) == ".";
    bool plain = (groups.size() == 1 || fraction) && !plus;
    if (plain && !has_context(text, begin, end, phone_context, kContextBefore, 0)) continue;
    if (!plus && has_context(text, begin, end, book_context, 12, 0)) continue;
    // A letter before hides the number from libphonenumber, as it should; what follows may be an extension.
    size_t from = begin > 0 && is_ascii(text[begin - 1]) ? begin - 1 : begin, to = end;
    while (to < text.size() && to - end < 16 && is_ascii(text[to]) && text[to] != '\n') ++to;
    for (const PhoneNumber& number : find_phone_numbers(text.substr(from, to - from), plus ? international : regions))
      found.push_back({phone, from + number.begin, from + number.end});
  }
}

void IdentifierFinder::find(std::string_view text, std::vector<FoundSpan>& found) const {
  const Plan& plan = *plan_;
  std::vector<FoundSpan> all, named;
  if (plan.wanted[plan.email]) plan.find_emails(text, named);
  for (size_t at = 0; at < text.size(); ++at) {
    if (!is_digit(text[at])) continue;
    Cluster cluster = cluster_at(text, at);
    at = std::max(at, cluster.end - 1);
    if (cluster.digits < 7 && cluster.dots < 3 && cluster.colons < 2 && cluster.longest_word < 14) continue;
    plan.find_numbers(text, groups_of(text, cluster), all, named);
    if (plan.wanted[plan.ip] && cluster.colons >= 2) plan.find_ipv6(text, cluster, all);
    if (plan.wanted[plan.phone] && cluster.digits >= 7) plan.find_phones(text, cluster, all);
    if (cluster.end - cluster.begin > kMaxCluster) at = std::max(at - kMaxIdentifier, cluster.begin + kMaxCluster / 2);
  }
  // What overlaps: e-mail, then what has a word of its scheme beside it, then the rule and the place that come first.
  auto preference = [&](const FoundSpan& a) { return std::tuple(a.rule != plan.email, a.rule, a.begin); };
  for (std::vector<FoundSpan>* spans : {&named, &all})
    std::sort(spans->begin(), spans->end(),
              [&](const FoundSpan& a, const FoundSpan& b) { return preference(a) < preference(b); });
  named.insert(named.end(), all.begin(), all.end());
  for (const FoundSpan& one : keep_apart(named)) found.push_back(one);
}

}  // namespace retort
