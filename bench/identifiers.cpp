// Recall and precision of the personal data that the guard pii finds: the table of docs/guards.md.
//   identifiers [--of-each 2000] [--seed 1000] [--text]
// The sentences are those of tests/data/identifier_samples.h, with other seeds than the tests. Intervals are Wilson's,
// 95 %. With --text it prints what the guard finds in FOLDOC and the Jargon File instead, a line each, for reading.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "bench/dictionary_entries.h"
#include "tests/data/identifier_samples.h"

namespace retort {
namespace {

/// "0.998 (0.994–0.999)".
std::string wilson(int64_t hits, int64_t of) {
  if (of == 0) return "–";
  const double z = 1.959964, n = static_cast<double>(of), p = static_cast<double>(hits) / n;
  const double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return fmt::format("{:.4f} ({:.4f}–{:.4f})", p, middle - half, std::min(1.0, middle + half));
}

void print_table(uint64_t seed, int64_t of_each) {
  const auto scores = identifier_scores(IdentifierFinder({.regions = {"US", "GB"}}), identifier_samples(seed, of_each));
  fmt::print("| Rule | Found | Recall | Precision |\n|---|---|---|---|\n");
  IdentifierScore all;
  for (const IdentifierRule& rule : identifier_rules()) {
    const IdentifierScore& score = scores.at(rule.name);
    fmt::print("| `{}` | {} | {} | {} |\n", rule.name, rule.text, wilson(score.hits, score.valid),
               wilson(score.hits, score.claimed));
    all.valid += score.valid, all.hits += score.hits, all.claimed += score.claimed;
  }
  fmt::print("| all | | {} | {} |\n", wilson(all.hits, all.valid), wilson(all.hits, all.claimed));
}

void print_findings() {
  const IdentifierFinder finder({.regions = {"US", "GB"}});
  for (const Chat& chat : dictionary_entries()) {
    std::vector<FoundSpan> found;
    finder.find(chat.text, found);
    for (const FoundSpan& span : found) {
      const size_t from = span.begin - std::min<size_t>(span.begin, 30);
      std::string around = chat.text.substr(from, span.end + 20 - from);
      std::replace(around.begin(), around.end(), '\n', ' ');
      fmt::print("{}\t{}\t{}\n", identifier_rules()[span.rule].name,
                 chat.text.substr(span.begin, span.end - span.begin), around);
    }
  }
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("Recall and precision of the personal data that is found");
  int64_t of_each = 2000;
  uint64_t seed = 1000;
  bool text = false;
  app.add_option("--of-each", of_each, "valid and as many invalid identifiers of each rule");
  app.add_option("--seed", seed);
  app.add_flag("--text", text, "print the findings in real text");
  CLI11_PARSE(app, argc, argv);
  try {
    text ? retort::print_findings() : retort::print_table(seed, of_each);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
