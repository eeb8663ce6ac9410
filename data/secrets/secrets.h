// Secrets in running text: a word that a rule cannot do without, then its expression (RE2, so that time is linear),
// then the entropy of what it found.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/found_spans.h"

namespace re2 {
class RE2;
}

namespace retort {

/// What is no secret after all. Empty lists do not count; of those that are there one must hold, with `all` each.
struct SecretExemption {
  enum class Target { secret, match, line };
  std::vector<std::shared_ptr<const re2::RE2>> expressions;  ///< one is found in the target
  Target target = Target::secret;
  std::vector<std::string> stop_words;  ///< in lower case; one is in the secret
  bool all = false;
};

struct SecretRule {
  std::string name, text;
  std::shared_ptr<const re2::RE2> expression;
  int group = 0;             ///< whose bytes are the secret; 0: the first one that matched, else all of the match
  double entropy = 0;        ///< the secret's bits a byte must be above, when not 0
  bool needs_digit = false;  ///< and a letter
  std::vector<std::string> keywords;  ///< in lower case; one must be in the text in any case; empty: always tried
  std::vector<SecretExemption> exemptions;
};

/// Our own rules: keys and tokens of well-known services by their published form, private keys, URLs with passwords,
/// and assignments to names such as "password" whose values look random.
std::vector<SecretRule> builtin_secret_rules();

/// The rules of a gitleaks configuration (TOML). Rows have no paths and no commits: a rule's `path` does not restrict
/// it, one with nothing but a `path` is left out, and exemptions by path or commit never hold. Error(bad_input) with
/// file and line for what TOML, RE2 or this reader does not know: other keys, `extend`, `required`.
std::vector<SecretRule> read_gitleaks_rules(const std::filesystem::path& path);

/// RE2's expression; Error(bad_input) with `where` and RE2's reason.
std::shared_ptr<const re2::RE2> compile_expression(const std::string& pattern, const std::string& where);

/// Shannon's entropy of the bytes, in bits a byte.
double byte_entropy(std::string_view text);

/// Applies rules. May be used from several threads.
class SecretFinder {
 public:
  /// `memory`: bytes for finding keywords. Error(bad_input) when they do not suffice to begin; when they do not suffice
  /// for a text, every rule is tried on it.
  explicit SecretFinder(std::vector<SecretRule> rules, int64_t memory = int64_t{64} << 20);
  ~SecretFinder();
  const std::vector<SecretRule>& rules() const;
  /// Appends what is in `text`, in order and without overlaps; FoundSpan::rule is an index into rules(). What is not
  /// UTF-8 matches nothing but itself.
  void find(std::string_view text, std::vector<FoundSpan>& found) const;

 private:
  struct Plan;
  std::unique_ptr<const Plan> plan_;
};

}  // namespace retort
