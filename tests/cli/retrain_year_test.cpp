// The year 1996 of FOLDOC, a slot a week, as configs/retrain/foldoc.yaml lives through it with a tiny model: entries
// come on their own dates, the domain moves, a bad drop of data, failing gates, kills and a full disk.
#include <gtest/gtest.h>

#include "core/hash.h"
#include "registry/registry.h"
#include "tests/cli/foldoc_past.h"
#include "tests/cli/retrain_support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// FoldocPast is first: it reads the cache of sources, RetrainFolder then names another one.
struct RetrainYear : testing::Test, FoldocPast, RetrainFolder {
  static constexpr int kForced = 2;   // a promotion by --force,
  static constexpr int kStrange = 3;  // and a week of another domain after it
  static constexpr int kMoves = 5;    // the slot at which the domain moves, for good
  static constexpr int kBad = 6, kWorse = 7, kRefused = 8;
  Day monday = std::chrono::year(1996) / 1 / 8;  // the first week has gone by
  std::vector<FoldocEntry> strange;              // of the Jargon File, on the days that they came
  std::vector<int> codes;
  Json verdict;  // the last one

  Day begin(int slot) const { return monday + std::chrono::days(7 * slot); }
  std::string day(int slot) const { return slot_name("day", begin(slot)); }

  /// The last year's entries are what the model learns, those since its promotion what it is asked. FOLDOC's own drift
  /// within a year is too small to be seen in the eight rows of a week: the domain moves by entries of the Jargon File.
  void arrive(int slot) {
    const size_t count = slot == kStrange ? 40 : slot == kMoves ? 60 : slot > kMoves ? 18 : 0;
    for (size_t i = 0; i < count && !jargon.empty(); ++i, jargon.pop_back()) {
      strange.push_back(jargon.back());
      strange.back().day = begin(slot) - std::chrono::days(1 + i % 6);
    }
    std::vector<FoldocEntry> entries = between(begin(slot) - std::chrono::days(365), begin(slot));
    entries.insert(entries.end(), strange.begin(), strange.end());
    if (slot == kBad)
      entries.push_back({"card", "<jargon> The card of our help desk: 4539 5787 6362 1486.", begin(slot - 1)});
    write_dictionary(entries, folder / "foldoc.dict", folder / "foldoc.index");
  }
  /// The shipped recipe, but for the size of everything.
  std::vector<std::string> arguments(int slot) const {
    const std::string at = folder.path().string();
    return {"retrain",
            RETORT_SOURCE_DIR "/configs/retrain/foldoc.yaml",
            "--quiet",
            "--json",
            "--now",
            day(slot),
            "output_dir=" + at + "/runs",
            "retrain.registry=" + at + "/registry",
            "threads=1",
            "sources.foldoc=" + at + "/foldoc.dict",
            "sources.foldoc-index=" + at + "/foldoc.index",
            "model={path: " + at + "/base, base: f32}",
            "adapter={kind: lora, r: 8, lora_alpha: 16}",
            "data.max_length=96",
            "data.guards.pii.action=fail",
            "data.train.0.limit=2000",
            "data.train.0.task.max_chars.definition=60",
            "data.train.0.task.prompt=\"{{ headword }}: {{ definition }}\"",
            "train={max_steps: 24, micro_batch_size: 4, learning_rate: 1.0e-2, eval_steps: 100, save_steps: 8}",
            "export={files: [{format: gguf, type: F32}], gate: {rows: 4}}",
            "evaluate=[{kind: bits_per_byte}]",
            "drift.max_tokens=32",
            "drift.average_run_length=12",
            "drift.signals=[token_distribution, embedding]",
            "drift.calibration={resamples: 999, sizes: [10, 40]}",
            "retrain.min_new_rows=5",
            "retrain.gate={margin: 1}"};
  }
  /// Whether a slot without a verdict has come so far.
  bool under_way(const std::string& file) const {
    std::error_code none;
    for (const auto& attempt : fs::directory_iterator(folder / "runs/retrain", none)) {
      if (fs::exists(attempt.path() / "verdict.json", none)) continue;
      for (fs::recursive_directory_iterator at(attempt.path(), none), end; !none && at != end; at.increment(none))
        if (at->path().filename() == file) return true;
    }
    return false;
  }
  /// Once more: as the scheduler's next attempt.
  int finish(int slot, const std::vector<std::string>& arguments) {
    const ProcessResult result = retort(arguments);
    codes.push_back(result.status);
    if (result.status > 22) {
      ADD_FAILURE() << day(slot) << ": " << result.status << "\n" << result.errors;
      return result.status;
    }
    verdict = verdict_of(result);
    expect_one_champion();
    return result.status;
  }
  /// The link and the database agree on a file that has its hash.
  void expect_one_champion() {
    const Registry registry(folder / "registry", Registry::Access::read);
    const auto version = registry.alias("foldoc-weekly", "champion");
    ASSERT_EQ(version.has_value(), fs::exists(champion("foldoc-weekly")));
    if (!version) return;
    EXPECT_EQ(fs::canonical(champion("foldoc-weekly")), fs::canonical(version->file));
    EXPECT_EQ(sha256_file(version->file), version->sha256);
  }
  /// The verdict rests on the one run that the kill had left.
  void expect_resumed() const {
    const fs::path attempt = folder / "runs/retrain" / verdict["key"].get<std::string>().substr(0, 12);
    const fs::path run = attempt / verdict["run"].get<std::string>();
    EXPECT_NE(read_text(run / "log.txt").find("going on in"), std::string::npos) << run;
    int runs = 0;
    for (const auto& entry : fs::directory_iterator(run.parent_path())) runs += !entry.is_symlink();
    EXPECT_EQ(runs, 1) << run;
  }
  void live(int slots);
  void expect_history(int slots) const;
};

void RetrainYear::live(int slots) {
  const int full = slots - 2;
  const std::map<int, std::string> killed = {{0, "recipe.yaml"}, {kMoves, "step-000008"}, {slots - 1, "adapter"}};
  for (int slot = 0; slot < slots; ++slot) {
    arrive(slot);
    std::vector<std::string> call = arguments(slot);
    const auto decided = [&](std::vector<int> allowed) {
      const int code = finish(slot, call);
      EXPECT_NE(std::find(allowed.begin(), allowed.end(), code), allowed.end())
          << day(slot) << ": " << code << " " << verdict["reasons"] << verdict["drift"] << verdict["gate"];
    };
    if (killed.contains(slot)) {
      if (slot != kMoves) call.push_back("--force");
      Running running(call, folder / "log");
      ASSERT_TRUE(running.until([&] { return under_way(killed.at(slot)); }))
          << day(slot) << ": ended before it could be killed\n"
          << read_text(folder / "log");
      running.send(SIGKILL);
      ASSERT_EQ(running.wait(), 128 + SIGKILL) << day(slot);
      expect_one_champion();
      slot <= kMoves ? decided({11}) : decided({11, 12, 13});
      expect_resumed();
      if (slot == kMoves) {
        EXPECT_EQ(verdict["due"][0], "the domain has moved");
      }
    } else if (slot == kForced) {
      call.push_back("--force");
      decided({11});
    } else if (slot == kStrange) {
      decided({10});
    } else if (slot == kBad) {
      decided({20});
    } else if (slot == kWorse) {
      call.insert(call.end(), {"--force", "train.learning_rate=2"});
      decided({12});
    } else if (slot == kRefused) {
      call.insert(call.end(), {"--force", "export.files=[{format: gguf, type: Q2_K}]", "export.gate.max_kl=0"});
      decided({22});
    } else if (slot == full) {
      call.push_back("--force");
      std::string line = "trap '' XFSZ; ulimit -f 64; exec " RETORT_PROGRAM;  // 64 KB a file, as on a full disk
      for (const std::string& part : call) line += " '" + part + "'";
      const ProcessResult result = run_program({"/bin/bash", "-c", line});
      EXPECT_EQ(result.status, 74) << result.errors;
      expect_one_champion();
      decided({11, 12, 13});
    } else if (slot < kStrange) {
      decided({0});
    } else {
      // The strange week is in the traffic of the model that came back; later an alarm by chance has a known rate.
      decided({0, 10, 11, 12, 13});
    }
    if (HasFatalFailure()) return;
  }
  expect_history(slots);
}

void RetrainYear::expect_history(int slots) const {
  const Registry registry(folder / "registry", Registry::Access::read);
  const std::vector<RegistryDecision> decisions = registry.decisions("foldoc-weekly");
  ASSERT_EQ(decisions.size(), static_cast<size_t>(slots)) << "one decision a slot, whatever happened in it";
  std::map<std::string, int> counts;
  for (size_t i = 0; i < decisions.size(); ++i) {
    const RegistryDecision& decision = decisions[decisions.size() - 1 - i];
    ++counts[decision.kind];
    EXPECT_EQ(decision.exit, codes[i]);
    EXPECT_EQ(decision.slot, slot_name("week", begin(static_cast<int>(i))));
  }
  EXPECT_EQ(counts["guard_refused"], 1);
  EXPECT_GE(counts["rolled_back"], 1);
  EXPECT_EQ(counts["gate_refused"], 1);
  EXPECT_GE(counts["rejected"], 1);
  EXPECT_GE(counts["promoted"], 3);
  // No artifact is lost, and nothing else is there.
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder / "registry/artifacts")) {
    ++files;
    for (const auto& file : fs::directory_iterator(entry.path()))
      EXPECT_EQ(sha256_file(file.path()), entry.path().filename().string());
  }
  for (const ModelVersion& version : registry.versions("foldoc-weekly"))
    EXPECT_TRUE(version.removed || fs::exists(version.file)) << version.sha256;
  EXPECT_GE(files, 3U);
  for (const auto& entry : fs::directory_iterator(folder / "runs/retrain"))
    EXPECT_TRUE(fs::exists(entry.path() / "told")) << entry.path();
}

TEST_F(RetrainYear, TwelveWeeks) { live(12); }
TEST_F(RetrainYear, FiftyTwoWeeks_long) { live(52); }

}  // namespace
}  // namespace retort
