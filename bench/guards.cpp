// MB/s of the guards on real text: FOLDOC and the Jargon File, an entry a row, 500 other entries held out.
//   guards [--threads 2] [--repeat 5] [--only all]
//   guards --rules    the rules of quality and secrets for docs/guards.md, as Markdown
// Prints one JSON object: every guard alone, then all together ("all"); the best of the repetitions. CPU seconds are
// those of all threads, which other programs on the machine disturb less.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "bench/dictionary_entries.h"
#include "data/guard_run.h"
#include "data/minhash.h"
#include "data/text_measures.h"

namespace retort {
namespace {

GuardSource source_of(const std::vector<Chat>& rows, const char* name) {
  return {name, [&rows] {
            return [&rows, i = size_t{0}](Chat& chat) mutable {
              if (i == rows.size()) return false;
              chat = rows[i++];
              return true;
            };
          }};
}

double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

struct Timing {
  double seconds = 1e30, cpu_seconds = 1e30;
  int64_t findings = 0;
};

Timing time(const std::vector<std::string>& kinds, const std::vector<Chat>& rows, const std::vector<Chat>& held,
            int repeat) {
  GuardPass pass{.rows = source_of(rows, "rows"),
                 .options = {},
                 .context = {.held_out = {source_of(held, "held out")}, .resolve = {}},
                 .audit = {}};
  pass.options.kinds.clear();
  for (const std::string& name : kinds)
    pass.options.kinds[name] = guard_kinds().at(name)->read(Yaml::parse("{}", "bench"));
  Timing best;
  for (int i = 0; i < repeat; ++i) {
    int64_t findings = 0;
    pass.audit = [&](std::string_view) { ++findings; };
    const auto start = std::chrono::steady_clock::now();
    const double cpu_start = cpu_seconds();
    const Stream<Chat> stream = guarded(pass, std::make_shared<GuardTotals>());
    for (Chat chat; stream(chat);) continue;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = {std::min(best.seconds, seconds), std::min(best.cpu_seconds, cpu_seconds() - cpu_start), findings};
  }
  return best;
}

int run(int threads, int repeat, const std::string& only) {
  at::set_num_threads(threads);
  std::vector<Chat> rows = dictionary_entries();
  const std::vector<Chat> held(rows.end() - 500, rows.end());
  rows.resize(rows.size() - 500);
  size_t bytes = 0;
  for (const Chat& chat : rows) bytes += chat.text.size();
  Json report = {{"threads", threads}, {"rows", rows.size()}, {"bytes", bytes}};
  std::vector<std::string> all;
  for (const auto& [name, kind] : guard_kinds()) all.push_back(name);
  const auto add = [&](const std::string& name, const std::vector<std::string>& kinds) {
    if (!only.empty() && only != name) return;
    const Timing timing = time(kinds, rows, held, repeat);
    report[name] = {{"megabytes_per_second", static_cast<double>(bytes) / 1e6 / timing.seconds},
                    {"cpu_seconds", timing.cpu_seconds},
                    {"findings", timing.findings}};
  };
  add("none", {});
  for (const std::string& name : all) add(name, {name});
  add("all", all);
  // With what probability MinHash compares two rows, by their similarity.
  for (double jaccard : {0.3, 0.5, 0.6, 0.7, 0.8, 0.9})
    report["compared"][fmt::format("{}", jaccard)] = candidate_probability(jaccard, {});
  fmt::print("{}\n", report.dump(2));
  return 0;
}

void print_rules() {
  fmt::print("| Rule | Measure | Limit |\n|---|---|---|\n");
  for (const TextRule& rule : text_rules())
    fmt::print("| `{}` | {} | {} {:g} |\n", rule.name, rule.text, rule.at_most ? "at most" : "at least", rule.limit);
  fmt::print("\n| Rule | Found |\n|---|---|\n");
  for (const GuardRule& rule : guard_kinds().at("secrets")->rules) fmt::print("| `{}` | {} |\n", rule.name, rule.text);
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("MB/s of the guards on real text");
  int threads = 2, repeat = 5;
  std::string only;
  app.add_option("--threads", threads);
  app.add_option("--repeat", repeat);
  app.add_option("--only", only, "one of the guards, none, all");
  bool rules = false;
  app.add_flag("--rules", rules, "print the rules instead");
  CLI11_PARSE(app, argc, argv);
  try {
    if (rules) return retort::print_rules(), 0;
    return retort::run(threads, repeat, only);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
