// How a finding is written down, and what stands for its value: HMAC-SHA-256 under the project's key.
#pragma once

#include <string>
#include <string_view>

#include "core/hmac.h"
#include "data/guard.h"

namespace retort {

/// The project's key: of the file, else of RETORT_PROJECT_KEY; empty without either. White space at its ends does not
/// count. Error(usage) for fewer than 16 bytes.
std::string guard_key(const GuardsOptions& options);

/// The bytes of the row that a finding is about; empty for one about the row as a whole.
std::string_view value_of(const Chat& chat, const Finding& finding);

class GuardAudit {
 public:
  /// Without a key one is drawn and forgotten: values can be compared within one audit, and nobody can try out what
  /// they are.
  explicit GuardAudit(const std::string& key);

  /// What the lines of one row begin with: {"row":…,"place":…
  std::string begin_row(const Chat& chat) const;
  /// A line of audit.jsonl, without the value.
  std::string line(const std::string& row, const Chat& chat, const std::string& guard, const Finding& finding,
                   GuardAction action) const;
  /// "[EMAIL]" or, of action: hash, "[EMAIL:0123456789abcdef]".
  std::string placeholder(const Chat& chat, const Finding& finding, GuardAction action) const;

 private:
  HmacSha256 hmac_;
};

}  // namespace retort
