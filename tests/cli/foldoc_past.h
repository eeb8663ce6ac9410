// FOLDOC as it was on a day, for programs that read it then: its entries by their own dates, and entries of the Jargon
// File that can be given any.
#pragma once

#include <re2/re2.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/files.h"
#include "data/dataset.h"
#include "monitor/slot.h"
#include "tests/data/foldoc.h"

namespace retort {

struct FoldocEntry {
  std::string headword, definition;  ///< without the date at its end
  Day day;
};

struct FoldocPast {
  std::vector<FoldocEntry> own;     ///< by date
  std::vector<FoldocEntry> jargon;  ///< of the Jargon File, which FOLDOC took in: about hackers, not about computing

  FoldocPast() {
    const Foldoc foldoc = pull_foldoc();
    const auto rows = open_rows({.kind = "dictd", .path = foldoc.text, .options = {{"index", foldoc.index.string()}}});
    const re2::RE2 dated(R"(\s*\(?((?:19|20)\d\d-\d\d-\d\d)\)?\s*$)");
    for (Row row; rows(row); row = {}) {
      FoldocEntry entry{row.fields["headword"], row.fields["definition"], {}};
      std::string date;
      if (re2::RE2::PartialMatch(entry.definition, dated, &date)) re2::RE2::Replace(&entry.definition, dated, "");
      const auto day = day_of(date);
      if (entry.definition.find("Jargon File") != std::string::npos) {
        if (!re2::RE2::PartialMatch(entry.definition, "<[a-z]")) entry.definition.insert(0, "<jargon> ");
        jargon.push_back(entry);
      } else if (day) {
        entry.day = *day;
        own.push_back(entry);
      }
    }
    std::stable_sort(own.begin(), own.end(), [](const auto& a, const auto& b) { return a.day < b.day; });
  }

  /// FOLDOC's own entries of the days from `since` to the one before `until`.
  std::vector<FoldocEntry> between(Day since, Day until) const {
    std::vector<FoldocEntry> entries;
    for (const FoldocEntry& entry : own)
      if (entry.day >= since && entry.day < until) entries.push_back(entry);
    return entries;
  }
};

/// Writes `text` and `index` as dictd reads them.
inline void write_dictionary(const std::vector<FoldocEntry>& entries, const std::filesystem::path& text,
                             const std::filesystem::path& index) {
  const auto base64 = [](size_t value) {
    static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string number;
    do number.insert(number.begin(), digits[value & 63]);
    while (value >>= 6);
    return number;
  };
  std::string all, lines;
  for (const FoldocEntry& entry : entries) {
    const std::string one =
        fmt::format("{}\n\n   {}\n\n   ({})\n\n", entry.headword, entry.definition, slot_name("day", entry.day));
    lines += fmt::format("{}\t{}\t{}\n", entry.headword, base64(all.size()), base64(one.size()));
    all += one;
  }
  write_atomic(text, all);
  write_atomic(index, lines);
}

}  // namespace retort
