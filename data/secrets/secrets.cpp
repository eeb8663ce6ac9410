#include "data/secrets/secrets.h"

#include <re2/re2.h>
#include <re2/set.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "core/error.h"

namespace retort {
namespace {

bool has_letter_and_digit(std::string_view text) {
  bool letter = false, digit = false;
  for (char c : text) {
    digit |= c >= '0' && c <= '9';
    letter |= (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
  }
  return letter && digit;
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string_view line_around(std::string_view text, size_t begin, size_t end) {
  size_t start = begin == 0 ? std::string_view::npos : text.rfind('\n', begin - 1);
  start = start == std::string_view::npos ? 0 : start + 1;
  return text.substr(start, std::min(text.find('\n', end), text.size()) - start);
}

bool is_exempt(const SecretExemption& exemption, std::string_view text, std::string_view match,
               std::string_view secret) {
  std::string_view target = secret;
  if (exemption.target == SecretExemption::Target::match) target = match;
  if (exemption.target == SecretExemption::Target::line)
    target = line_around(text, static_cast<size_t>(match.data() - text.data()),
                         static_cast<size_t>(match.data() - text.data()) + match.size());
  bool matches = std::any_of(exemption.expressions.begin(), exemption.expressions.end(), [&](const auto& expression) {
    return re2::RE2::PartialMatch(re2::StringPiece(target.data(), target.size()), *expression);
  });
  std::string lower = exemption.stop_words.empty() ? "" : lower_case(secret);
  bool stops = std::any_of(exemption.stop_words.begin(), exemption.stop_words.end(),
                           [&](const std::string& word) { return lower.find(word) != std::string::npos; });
  if (!exemption.all) return matches || stops;
  return (matches || exemption.expressions.empty()) && (stops || exemption.stop_words.empty());
}

}  // namespace

std::shared_ptr<const re2::RE2> compile_expression(const std::string& pattern, const std::string& where) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  auto expression = std::make_shared<const re2::RE2>(pattern, options);
  if (!expression->ok()) fail(Exit::bad_input, "{}: RE2 does not take the expression: {}", where, expression->error());
  return expression;
}

double byte_entropy(std::string_view text) {
  std::array<size_t, 256> count{};
  for (char c : text) ++count[static_cast<unsigned char>(c)];
  double bits = 0;
  for (size_t n : count)
    if (n > 0) {
      double share = static_cast<double>(n) / static_cast<double>(text.size());
      bits -= share * std::log2(share);
    }
  return bits;
}

struct SecretFinder::Plan {
  std::vector<SecretRule> rules;
  std::unique_ptr<re2::RE2::Set> keywords;            ///< every keyword once
  std::vector<std::vector<size_t>> rules_of_keyword;  ///< by the set's index
  std::vector<size_t> always;                         ///< rules without a keyword

  std::vector<size_t> asked_by(std::string_view text) const;
  void apply(size_t rule, std::string_view text, std::vector<FoundSpan>& found) const;
};

SecretFinder::SecretFinder(std::vector<SecretRule> rules, int64_t memory) {
  auto plan = std::make_unique<Plan>();
  plan->rules = std::move(rules);
  std::map<std::string, std::vector<size_t>> users;
  for (size_t rule = 0; rule < plan->rules.size(); ++rule) {
    if (plan->rules[rule].keywords.empty()) plan->always.push_back(rule);
    for (const std::string& keyword : plan->rules[rule].keywords) users[lower_case(keyword)].push_back(rule);
  }
  re2::RE2::Options options;
  options.set_case_sensitive(false);
  options.set_literal(true);
  options.set_encoding(re2::RE2::Options::EncodingLatin1);  // bytes: a third of the states
  options.set_max_mem(memory);
  options.set_log_errors(false);
  plan->keywords = std::make_unique<re2::RE2::Set>(options, re2::RE2::UNANCHORED);
  for (const auto& [keyword, indices] : users) {
    if (plan->keywords->Add(keyword, nullptr) < 0) fail(Exit::internal, "RE2 does not take the keyword {}", keyword);
    plan->rules_of_keyword.push_back(indices);
  }
  if (!plan->keywords->Compile()) fail(Exit::bad_input, "too many keywords in the rules for secrets");
  plan_ = std::move(plan);
}

SecretFinder::~SecretFinder() = default;

const std::vector<SecretRule>& SecretFinder::rules() const { return plan_->rules; }

void SecretFinder::Plan::apply(size_t index, std::string_view text, std::vector<FoundSpan>& found) const {
  const SecretRule& rule = rules[index];
  const int groups = 1 + rule.expression->NumberOfCapturingGroups();
  std::vector<re2::StringPiece> parts(static_cast<size_t>(groups));
  const re2::StringPiece whole(text.data(), text.size());
  for (size_t at = 0; at <= text.size();) {
    if (!rule.expression->Match(whole, at, text.size(), re2::RE2::UNANCHORED, parts.data(), groups)) return;
    re2::StringPiece secret = parts[static_cast<size_t>(rule.group)];
    if (rule.group == 0)
      for (size_t group = parts.size() - 1; group > 0; --group)
        if (!parts[group].empty()) secret = parts[group];
    const auto match_end = static_cast<size_t>(parts[0].data() + parts[0].size() - text.data());
    at = std::max(match_end, at + 1);
    std::string_view value(secret.data(), secret.size()), match(parts[0].data(), parts[0].size());
    if (value.empty() || (rule.entropy > 0 && byte_entropy(value) <= rule.entropy)) continue;
    if (rule.needs_digit && !has_letter_and_digit(value)) continue;
    if (std::any_of(rule.exemptions.begin(), rule.exemptions.end(),
                    [&](const SecretExemption& exemption) { return is_exempt(exemption, text, match, value); }))
      continue;
    const auto begin = static_cast<size_t>(value.data() - text.data());
    found.push_back({index, begin, begin + value.size()});
  }
}

/// The rules that a keyword in the text asks for.
std::vector<size_t> SecretFinder::Plan::asked_by(std::string_view text) const {
  std::vector<size_t> asked = always;
  if (rules_of_keyword.empty()) return asked;
  std::vector<int> there;
  re2::RE2::Set::ErrorInfo error{};
  if (!keywords->Match(re2::StringPiece(text.data(), text.size()), &there, &error)) {
    // Out of memory is no answer, and a rule without its keyword costs time only.
    for (size_t keyword = 0; error.kind != re2::RE2::Set::kNoError && keyword < rules_of_keyword.size(); ++keyword)
      there.push_back(static_cast<int>(keyword));
  }
  for (int keyword : there) {
    const auto& of_keyword = rules_of_keyword[static_cast<size_t>(keyword)];
    asked.insert(asked.end(), of_keyword.begin(), of_keyword.end());
  }
  return asked;
}

void SecretFinder::find(std::string_view text, std::vector<FoundSpan>& found) const {
  std::vector<size_t> tried = plan_->asked_by(text);
  std::sort(tried.begin(), tried.end());
  tried.erase(std::unique(tried.begin(), tried.end()), tried.end());
  std::vector<FoundSpan> all;
  for (size_t rule : tried) plan_->apply(rule, text, all);
  for (const FoundSpan& span : keep_apart(all)) found.push_back(span);
}

}  // namespace retort
