// A year of weekly slots over dated rows: drift, a drop of bad data, a failing gate, kills and a full disk.
#include <gtest/gtest.h>

#include "core/hash.h"
#include "monitor/slot.h"
#include "registry/registry.h"
#include "tests/cli/retrain_support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct RetrainYear : testing::Test, RetrainFolder {
  static constexpr int kMoves = 5;  // the slot at which the domain moves
  Day monday = std::chrono::year(2026) / 1 / 5;
  std::vector<int> codes;

  std::string day(int slot, int after = 0) const {
    return slot_name("day", monday + std::chrono::days(7 * slot + after));
  }

  /// The slot's arguments: rows arrive, and the traffic of the week before.
  std::vector<std::string> arguments(int slot, bool moved) {
    add_rows(10000 + static_cast<uint64_t>(slot) * 100, slot == kMoves ? 40 : 12, slot >= kMoves);
    return command(day(slot), {"--data", log(500 + static_cast<uint64_t>(slot), 20, moved ? 20 : 0, day(slot, 0))});
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
    if (result.status > 22) ADD_FAILURE() << day(slot) << ": " << result.status << "\n" << result.errors;
    expect_one_champion();
    return result.status;
  }
  /// The link and the database agree on a file that has its hash.
  void expect_one_champion() {
    const Registry registry(folder / "registry", Registry::Access::read);
    const auto version = registry.alias("orders", "champion");
    ASSERT_EQ(version.has_value(), fs::exists(champion()));
    if (!version) return;
    EXPECT_EQ(fs::canonical(champion()), fs::canonical(version->file));
    EXPECT_EQ(sha256_file(version->file), version->sha256);
  }
  void live(int slots);
};

void RetrainYear::live(int slots) {
  const int bad = kMoves + 1, back = kMoves + 2, failing = kMoves + 4, full = slots - 2;
  const std::map<int, std::string> killed = {{0, "recipe.yaml"}, {kMoves, "step-000008"}, {slots - 1, "adapter"}};
  for (int slot = 0; slot < slots; ++slot) {
    if (slot == bad) rows.push_back("{\"prompt\": \"My card?\", \"completion\": \"4539578763621486\"}\n");
    usual(slot >= kMoves);
    std::vector<std::string> call = arguments(slot, slot >= kMoves && slot != back);
    const auto decided = [&](std::vector<int> allowed) {
      const int code = finish(slot, call);
      EXPECT_NE(std::find(allowed.begin(), allowed.end(), code), allowed.end()) << day(slot) << ": " << code;
    };
    if (killed.contains(slot)) {
      if (slot != kMoves) call.push_back("--force");
      Running running(call, folder / "log");
      running.until([&] { return under_way(killed.at(slot)); });
      running.send(SIGKILL);
      running.wait();
      expect_one_champion();
      slot <= kMoves ? decided({11}) : decided({11, 12, 13});
    } else if (slot == bad) {
      decided({20});
      rows.erase(rows.end() - 2);
    } else if (slot == back) {
      decided({10});  // another domain for a week, soon after the promotion
    } else if (slot == back + 1) {
      decided({11});  // and the old model's alarm, which is still raised
    } else if (slot == failing) {
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
    } else if (slot < kMoves) {
      decided({0});
    } else {
      decided({0, 10, 11, 12, 13});  // an alarm by chance has a known rate, which is not 0
    }
  }
  const Registry registry(folder / "registry", Registry::Access::read);
  const std::vector<RegistryDecision> decisions = registry.decisions("orders");
  EXPECT_EQ(decisions.size(), static_cast<size_t>(slots)) << "one decision a slot, whatever happened in it";
  std::map<std::string, int> counts;
  for (size_t i = 0; i < decisions.size(); ++i) {
    const RegistryDecision& decision = decisions[decisions.size() - 1 - i];
    ++counts[decision.kind];
    EXPECT_EQ(decision.exit, codes[i]);
    EXPECT_EQ(decision.slot, slot_name("week", monday + std::chrono::days(7 * static_cast<int>(i))));
  }
  EXPECT_EQ(counts["guard_refused"], 1);
  EXPECT_GE(counts["rolled_back"], 1);
  EXPECT_EQ(counts["gate_refused"], 1);
  EXPECT_GE(counts["promoted"], 3);
  // No artifact is lost, and nothing else is there.
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder / "registry/artifacts")) {
    ++files;
    for (const auto& file : fs::directory_iterator(entry.path()))
      EXPECT_EQ(sha256_file(file.path()), entry.path().filename().string());
  }
  for (const ModelVersion& version : registry.versions("orders"))
    EXPECT_TRUE(version.removed || fs::exists(version.file)) << version.sha256;
  EXPECT_GE(files, 3U);
  for (const auto& entry : fs::directory_iterator(folder / "runs/retrain"))
    EXPECT_TRUE(fs::exists(entry.path() / "told")) << entry.path();
}

TEST_F(RetrainYear, TwelveWeeks) { live(12); }
TEST_F(RetrainYear, FiftyTwoWeeks_long) { live(52); }

}  // namespace
}  // namespace retort
