// Which linear layers an adapter goes to, by PEFT's rules, and with what rank and scale.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "adapters/options.h"

namespace retort {

struct Target {
  size_t index = 0;  ///< in the list of names
  int64_t r = 0;
  double alpha = 0;
  double scale = 0;  ///< alpha / r, or alpha / sqrt(r) with rsLoRA
};

/// Matches `names` (module names of all linear layers, the head's included) as PEFT's check_target_module_exists does,
/// in order. `head` is what "all-linear" leaves out. Stricter than PEFT: a name, expression, layer or pattern that
/// matches nothing, and two patterns that match one module, are Error(usage) listing what there is.
std::vector<Target> match_targets(const AdapterOptions& options, const std::vector<std::string>& names,
                                  const std::string& head = "lm_head");

/// Whether `choice` names the module, by the same rules.
bool chooses(const ModuleChoice& choice, const std::string& name);

}  // namespace retort
