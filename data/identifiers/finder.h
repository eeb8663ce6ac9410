// Personal identifiers in running text: what looks like one is found by its digits or its '@', what is one is decided
// by its check digits, layout and neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/found_spans.h"

namespace retort {

struct IdentifierRule {
  const char* name;
  const char* text;  ///< one line: what is found
};

/// Every rule: "iban", "card", …, "email", "ip", "phone".
const std::vector<IdentifierRule>& identifier_rules();

struct IdentifierOptions {
  std::vector<std::string> rules = {};    ///< names of what is looked for; empty: everything
  std::vector<std::string> regions = {};  ///< of telephone numbers in national form, ISO 3166
  bool global_ip_only = true;             ///< no addresses of private networks and documentation
};

/// Finds identifiers of Latin letters and ASCII digits. Separators are those of print, no-break spaces and hyphens too,
/// but no line breaks. May be used from several threads.
class IdentifierFinder {
 public:
  /// Names must be ones that exist: Error(internal) for another.
  explicit IdentifierFinder(const IdentifierOptions& options);
  ~IdentifierFinder();
  /// Appends what is in `text`, any bytes, in order and without overlaps; FoundSpan::rule is an index into
  /// identifier_rules(). Time is linear in the text's length, about
  /// 1 ns a byte without digits; telephone numbers cost 0.1 ms each.
  void find(std::string_view text, std::vector<FoundSpan>& found) const;

 private:
  struct Plan;
  std::unique_ptr<const Plan> plan_;
};

}  // namespace retort
