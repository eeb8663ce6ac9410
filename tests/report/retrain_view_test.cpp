// The page of a slot: decision, reasons, and what the gate compared.
#include <gtest/gtest.h>

#include <functional>

#include "report/report.h"

namespace retort {
namespace {

Json verdict() {
  const Json all{{"name", "all rows"},       {"rows", 120},   {"champion", 0.51}, {"challenger", 0.625},
                 {"difference", 0.115},      {"low", 0.0432}, {"high", 0.187},    {"not_worse_p_value", 0.0012},
                 {"worse_p_adjusted", 0.977}};
  Json slice = all;
  slice["name"] = "language";
  slice["difference"] = -0.25;
  return {{"model", "terms"},
          {"slot", "2026-W48"},
          {"key", "0123abcd"},
          {"decision", "promoted"},
          {"reasons", {"no worse by 0.02"}},
          {"due", {"the domain has moved"}},
          {"facts",
           {{"champion", true},
            {"drift", true},
            {"harmful", nullptr},
            {"rows", 900},
            {"new_rows", 77},
            {"age_days", 33.0}}},
          {"drift", {{"alarm", true}, {"reasons", {"embedding (mmd), effect 1.4"}}}},
          {"champion_before", {{"sha256", "aaaabbbbccccdddd"}}},
          {"challenger", {{"sha256", "eeeeffff00001111"}}},
          {"champion", {{"sha256", "eeeeffff00001111"}}},
          {"gate",
           {{"margin", 0.02},
            {"alpha", 0.05},
            {"test", "exact unconditional, Tango's score"},
            {"all", all},
            {"slices", Json::array({slice})},
            {"floors", {{{"name", "f1"}, {"value", 0.71}, {"low", 0.64}, {"high", 0.78}, {"at_least", 0.6}}}},
            {"limits", {{{"name", "bytes"}, {"value", 101.0}, {"at_most", 200.0}}}}}}};
}

std::string page_of(const Json& retrain) { return render_report({{"name", "terms"}, {"retrain", retrain}}); }

TEST(RetrainPage, ShowsTheDecisionAndItsReasons) {
  const std::string page = page_of(verdict());
  for (const char* text : {"Promoted",
                           "no worse by 0.02",
                           "the domain has moved",
                           "embedding (mmd), effect 1.4",
                           "2026-W48",
                           "0123abcd",
                           "aaaabbbbcccc",
                           "eeeeffff0000",
                           "+0.115",
                           "+0.0432 to +0.187",
                           "0.0012",
                           "0.98",
                           "language",
                           "−0.25",
                           "f1",
                           "0.64 to 0.78",
                           "≥ 0.6",
                           "bytes",
                           "≤ 200",
                           "not known",
                           "Tango",
                           "drift/report.html"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
}

TEST(RetrainPage, EveryDecisionHasItsWords) {
  const std::pair<const char*, const char*> words[] = {
      {"nothing_due", "Nothing is due"},     {"due", "A new model is due"},
      {"rolled_back", "taken back"},         {"rejected", "Rejected"},
      {"inconclusive", "Inconclusive"},      {"guard_refused", "A data guard refused"},
      {"contaminated", "Contaminated rows"}, {"gate_refused", "Refused by the export gate"}};
  for (const auto& [decision, text] : words) {
    const std::string page = page_of({{"decision", decision}, {"slot", "2026-W48"}});
    EXPECT_NE(page.find(text), std::string::npos) << decision;
    EXPECT_EQ(page.find("What was trained"), std::string::npos) << decision;
  }
}

TEST(RetrainPage, AnyKeyMayBeMissingAndNoTextIsMarkup) {
  std::vector<std::string> pointers;
  std::function<void(const Json&, const std::string&)> collect = [&](const Json& value, const std::string& at) {
    if (!at.empty()) pointers.push_back(at);
    for (const auto& [key, item] : value.items())
      if (value.is_structured()) collect(item, at + "/" + key);
  };
  collect(verdict(), "");
  for (const std::string& pointer : pointers) {
    for (const Json& other : {Json(), Json("<img src=x>"), Json(1.5), Json::array({1}), Json{{"a", 1}}}) {
      Json changed = verdict();
      changed[Json::json_pointer(pointer)] = other;
      const std::string page = page_of(changed);
      EXPECT_NE(page.find("</html>"), std::string::npos) << pointer;
      EXPECT_EQ(page.find("<img"), std::string::npos) << pointer;
    }
  }
}

}  // namespace
}  // namespace retort
