// The page of a drift check: every signal over time, its limits, the two keys, the decision.
#include <gtest/gtest.h>

#include <functional>

#include "core/files.h"
#include "report/report.h"

namespace retort {
namespace {

Json golden() { return read_json(RETORT_GOLDEN "/drift_report.json"); }

size_t count(const std::string& page, const std::string& text) {
  size_t found = 0;
  for (size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) ++found;
  return found;
}

/// The table rows that begin with this slot.
std::vector<std::string> rows_of(const std::string& page, const std::string& slot) {
  std::vector<std::string> rows;
  const std::string begin = "<tr><th scope=\"row\">" + slot;
  for (size_t at = page.find(begin); at != std::string::npos; at = page.find(begin, at + 1))
    rows.push_back(page.substr(at, page.find("</tr>", at) - at));
  return rows;
}

TEST(DriftPage, ShowsEverySignalOverTimeWithItsLimitsAndKeys) {
  const std::string page = render_report(golden());
  EXPECT_EQ(count(page, "<canvas class=\"signal\""), 2u);
  EXPECT_EQ(count(page, "<canvas id=\"level\""), 1u);
  for (const char* text :
       {"Drift: retraining is due", "bits_per_byte (ks), effect 0.41 above 0.08", "Bits per byte", "bits/byte, ks",
        "Embedding", "vector, mmd", "limit 0.08", "limit 0.02", "Beyond both keys in 2 slots",
        "Beyond both keys in 1 slot;", "usual: mean 1.58, from 1.1 to 2.2", "fewer than 5",
        "2026-11-24: 3 rows, 20 are needed", "model.gguf", "3 rows", "limit 0.01",
        "5f1d7a84db00d2fce00b31a7fc73224f1dc6f2e1e3a67f4a2d3f0b9f5e8f1a22"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
  // Slot by slot: the level, then bits per byte, then the embedding.
  const char* const cells[][3] = {
      {">0.71<", ">second<", ">none<"}, {">41.5<", ">both<", ">first<"}, {">ALARM<", ">both<", ">both<"}};
  for (size_t day = 0; day < 3; ++day) {
    const auto rows = rows_of(page, "2026-11-2" + std::to_string(day + 1));
    ASSERT_EQ(rows.size(), 3u) << day;
    for (size_t i = 0; i < 3; ++i) EXPECT_NE(rows[i].find(cells[day][i]), std::string::npos) << day << rows[i];
  }
  const std::string last = rows_of(page, "2026-11-23")[1];
  for (const char* text : {">2.21<", ">0.41<", ">0.185<", ">0.001<"})
    EXPECT_NE(last.find(text), std::string::npos) << text;
  // What the charts draw: the limit, and of each slot the effect and which keys it turned.
  EXPECT_NE(page.find("[0.35,true,true]"), std::string::npos);
  EXPECT_NE(page.find("[0.006,true,false]"), std::string::npos);
  EXPECT_NE(page.find("\"limit\":0.02"), std::string::npos);
}

TEST(DriftPage, EveryDecisionHasItsWords) {
  struct Case {
    Json changes;
    const char *text, *sentence;
  };
  const Case cases[] = {
      {{{"alarm", false}, {"reasons", Json::array()}}, "No drift", "looks like the baseline"},
      {{{"alarm", false}}, "No drift", "not for long enough"},
      {{{"alarm", false}, {"compared", false}}, "Nothing was compared", "says nothing about drift"},
      {{{"deployment_changed", true}, {"sequential", false}},
       "The deployment has changed",
       "answers fixed texts differently"},
      {{{"deployment_changed", true}}, "Drift: retraining is due", "is not what was profiled"},
      {{{"rule", "two_keys"}}, "Drift: retraining is due", "no longer looks like the baseline"},
  };
  for (const Case& one : cases) {
    Json report = golden();
    report["drift"]["decision"].update(one.changes);
    const std::string page = render_report(report);
    EXPECT_NE(page.find(one.text), std::string::npos) << one.changes;
    EXPECT_NE(page.find(one.sentence), std::string::npos) << one.changes;
  }
}

TEST(DriftPage, AnyKeyMayBeMissingAndNoTextIsMarkup) {
  std::vector<std::string> pointers;
  std::function<void(const Json&, const std::string&)> collect = [&](const Json& value, const std::string& at) {
    if (!at.empty()) pointers.push_back(at);
    if (!value.is_structured()) return;
    for (const auto& [key, item] : value.items()) {
      if (value.is_object() || key == "0") collect(item, at + "/" + key);  // one of a list stands for the others
    }
  };
  collect(golden()["drift"], "/drift");
  for (const std::string& pointer : pointers) {
    for (const Json& other : {Json(), Json("<img src=x>"), Json(1.5), Json::array({1}), Json{{"a", 1}}}) {
      Json changed = golden();
      changed[Json::json_pointer(pointer)] = other;
      const std::string page = render_report(changed);
      EXPECT_NE(page.find("</html>"), std::string::npos) << pointer;
      EXPECT_EQ(page.find("<img"), std::string::npos) << pointer;
    }
  }
}

}  // namespace
}  // namespace retort
