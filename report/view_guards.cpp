// What the guards found in the training rows.
#include "report/format.h"
#include "report/view.h"

namespace retort {

Json guards_view(const Json& report) {
  const Json& guards = value_at(report, "/guards");
  if (!guards.is_object()) return nullptr;
  Json facts = Json::array(), rules = Json::array();
  for (const auto& [label, key] : {std::pair("Rows read", "/rows"), std::pair("Rows that stay", "/kept"),
                                   std::pair("Of these changed", "/changed"), std::pair("Dropped", "/dropped")})
    facts.push_back({{"label", label}, {"value", show_count(value_at(guards, key))}});
  const Json& found = value_at(guards, "/rules");
  if (found.is_object())
    for (const auto& [guard, of_guard] : found.items()) {
      if (!of_guard.is_object()) continue;
      for (const auto& [name, rule] : of_guard.items())
        rules.push_back({{"guard", guard},
                         {"rule", name},
                         {"action", text_at(rule, "/action")},
                         {"findings", show_count(value_at(rule, "/findings"))},
                         {"rows", show_count(value_at(rule, "/rows"))}});
    }
  return {{"facts", facts}, {"rules", rules}, {"limits", text_at(guards, "/limits")}};
}

}  // namespace retort
