// Is a new model due, and why. Pure: facts in, reasons out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "recipes/retrain_options.h"

namespace retort {

/// What is known at the beginning of a slot.
struct DueFacts {
  bool champion = false;        ///< there is one
  std::optional<bool> drift;    ///< the alarm; nothing: not looked at
  std::optional<bool> harmful;  ///< the champion answers labelled traffic worse; nothing: cannot tell
  int64_t rows = 0;             ///< to train on
  int64_t new_rows = 0;         ///< of them, those that the champion has not seen
  double age_days = 0;          ///< of the champion
  Json to_json() const;
};

struct Due {
  bool due = false;
  std::vector<std::string> reasons;  ///< for people: why, or why not
};

/// Without a champion one is due. Otherwise any of `when`, unless there is not enough new data, or the only reason is
/// drift that harms nothing. Error(usage) for an expression that does not evaluate.
Due is_due(const RetrainOptions& options, const DueFacts& facts);

/// Error(usage) when an expression does not parse, or reads what is not among the facts.
void check_due_expression(const std::string& expression);

}  // namespace retort
