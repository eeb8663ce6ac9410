// MB/s of the guards on real text: FOLDOC and the Jargon File, an entry a row, 500 other entries held out.
//   guards [--threads 2] [--repeat 5]
// Prints one JSON object: every guard alone, then all together ("all"); the best of the repetitions.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "core/sources.h"
#include "data/guard_run.h"
#include "data/minhash.h"

namespace retort {
namespace {

std::vector<Chat> entries_of(const std::string& package, const std::string& name) {
  const auto file = [&](const char* suffix) {
    return pull({.uri = fmt::format("deb:{}!usr/share/dictd/{}{}", package, name, suffix), .sha256 = "", .name = ""});
  };
  const Stream<Row> rows =
      open_rows({.kind = "dictd", .path = file(".dict.dz"), .options = {{"index", file(".index").string()}}});
  std::vector<Chat> chats;
  for (Row row; rows(row);) {
    Chat chat;
    chat.place = row.place;
    chat.text = row.fields["definition"].get<std::string>();
    chats.push_back(std::move(chat));
  }
  return chats;
}

GuardSource source_of(const std::vector<Chat>& rows, const char* name) {
  return {name, [&rows] {
            return [&rows, i = size_t{0}](Chat& chat) mutable {
              if (i == rows.size()) return false;
              chat = rows[i++];
              return true;
            };
          }};
}

struct Timing {
  double seconds = 1e30;
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
    const Stream<Chat> stream = guarded(pass, std::make_shared<GuardTotals>());
    for (Chat chat; stream(chat);) continue;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = {std::min(best.seconds, seconds), findings};
  }
  return best;
}

int run(int threads, int repeat) {
  at::set_num_threads(threads);
  std::vector<Chat> rows = entries_of("dict-foldoc", "foldoc");
  for (Chat& chat : entries_of("dict-jargon", "jargon")) rows.push_back(std::move(chat));
  const std::vector<Chat> held(rows.end() - 500, rows.end());
  rows.resize(rows.size() - 500);
  size_t bytes = 0;
  for (const Chat& chat : rows) bytes += chat.text.size();
  Json report = {{"threads", threads}, {"rows", rows.size()}, {"bytes", bytes}};
  std::vector<std::string> all;
  for (const auto& [name, kind] : guard_kinds()) all.push_back(name);
  const auto add = [&](const std::string& name, const std::vector<std::string>& kinds) {
    const Timing timing = time(kinds, rows, held, repeat);
    report[name] = {{"megabytes_per_second", static_cast<double>(bytes) / 1e6 / timing.seconds},
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

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("MB/s of the guards on real text");
  int threads = 2, repeat = 5;
  app.add_option("--threads", threads);
  app.add_option("--repeat", repeat);
  CLI11_PARSE(app, argc, argv);
  try {
    return retort::run(threads, repeat);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
