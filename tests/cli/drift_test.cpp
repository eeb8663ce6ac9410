// retort drift as a shell runs it: profile, calibrate, check; what is written, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <thread>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::string one_of(Rng& rng, const std::vector<std::string>& words) { return words[rng.below(words.size())]; }

/// Short questions about orders; `moved`: about something else, in another way.
std::string question(Rng& rng, bool moved) {
  if (moved)
    return fmt::format("for ({0} = 0; {0} < {1}; ++{0}) {{ {2}[{0}] *= {3}; }} // {2}, {1}",
                       one_of(rng, {"i", "j", "k"}), rng.below(900), one_of(rng, {"xs", "weights", "grad", "buf"}),
                       one_of(rng, {"alpha", "0.5f", "n"}));
  return fmt::format(
      "{} {} {} {}?", one_of(rng, {"Where is", "When will I get", "Can I return", "Who has sent me"}),
      one_of(rng, {"the blue", "my new", "a broken", "the second", "that old"}),
      one_of(rng, {"lamp", "coat", "kettle", "bicycle", "table", "radio"}),
      one_of(rng, {"I ordered in May", "from last week", "on my bill", "for my sister", "you promised me"}));
}

/// A serving log. Rows of `day`, of which the last `moved` are of another domain.
std::string log_of(uint64_t seed, size_t rows, size_t moved, const std::string& day = "") {
  Rng rng(seed);
  std::string text;
  for (size_t i = 0; i < rows; ++i) {
    const bool other = i + moved >= rows;
    Json line{{"prompt", question(rng, other)},
              {"answer", other ? "I'm sorry, I cannot help with that." : "On Monday."}};
    if (!day.empty()) line["time"] = day + "T12:00:00Z";
    text += line.dump() + "\n";
  }
  return text;
}

/// One profile of the real model, made and calibrated once; each test copies the folder's files that it changes.
class Drift : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    const fs::path model = smollm2_path();
    setenv("RETORT_CACHE", (at("cache")).c_str(), 1);
    setenv("RETORT_PROJECT_KEY", "a key for tests, longer than 16", 1);
    fs::create_symlink(model, at("model.gguf"));
    write_atomic(at("baseline.jsonl"), log_of(1, 160, 0));
    write_atomic(at("recipe.yaml"), fmt::format(R"(
name: orders
model: {{path: {0}/model.gguf}}
data: {{train: [{{kind: jsonl, path: {0}/baseline.jsonl, fields: {{completion: answer}}}}]}}
output_dir: {0}/runs
drift:
  baseline_log: {0}/baseline.jsonl
  max_tokens: 32
  min_rows: 10
  calibration: {{resamples: 199, sizes: [20]}}
)",
                                                folder_->path().string()));
    const auto made = drift({"profile"});
    ASSERT_EQ(made.status, 0) << made.errors;
    fs::copy_file(at("model.gguf.drift.json"), at("uncalibrated.json"));
    const auto calibrated = drift({"calibrate"});
    ASSERT_EQ(calibrated.status, 0) << calibrated.errors;
  }
  static void TearDownTestSuite() {
    unsetenv("RETORT_CACHE");
    unsetenv("RETORT_PROJECT_KEY");
    delete folder_;
  }

  static fs::path at(const std::string& name) { return *folder_ / name; }
  /// `retort drift COMMAND recipe.yaml --quiet OPTIONS`.
  static ProcessResult drift(std::vector<std::string> arguments) {
    std::vector<std::string> all = {"drift", arguments[0], at("recipe.yaml").string(), "--quiet"};
    all.insert(all.end(), arguments.begin() + 1, arguments.end());
    return retort(all);
  }
  static ProcessResult check(const std::string& rows, std::vector<std::string> more = {}) {
    const auto file = at("traffic.jsonl");
    write_atomic(file, rows);
    more.insert(more.begin(), {"check", "--data", file.string()});
    return drift(more);
  }
  static void expect_refused(const ProcessResult& result, int status, const std::vector<std::string>& parts) {
    EXPECT_EQ(result.status, status) << result.errors;
    for (const std::string& part : parts) EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
  }

  static TemporaryFolder* folder_;
};
TemporaryFolder* Drift::folder_ = nullptr;

/// What OpenMetrics allows of gauges without timestamps: families together, TYPE first, names and labels well formed,
/// no sample twice, # EOF at the end. Returns the samples.
std::map<std::string, double> strict_metrics(const std::string& text) {
  std::map<std::string, double> samples;
  std::set<std::string> families;
  std::string family;
  size_t at = 0;
  auto line_end = [&] { return text.find('\n', at); };
  for (size_t end = line_end(); end != std::string::npos; at = end + 1, end = line_end()) {
    const std::string line = text.substr(at, end - at);
    if (line == "# EOF") {
      EXPECT_EQ(end + 1, text.size());
      return samples;
    }
    if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(line.ends_with(" gauge"));
      family = line.substr(7, line.size() - 13);
      EXPECT_TRUE(families.insert(family).second) << family;
      continue;
    }
    if (line.starts_with("# HELP ")) {
      EXPECT_TRUE(line.starts_with("# HELP " + family + " "));
      continue;
    }
    EXPECT_TRUE(line.starts_with(family)) << line;
    const size_t space = line.rfind(' ');
    const std::string name = line.substr(0, space);
    if (name.size() > family.size()) {
      EXPECT_EQ(name[family.size()], '{');
      EXPECT_EQ(name.back(), '}');
    }
    char* rest = nullptr;
    const double value = std::strtod(line.c_str() + space + 1, &rest);
    EXPECT_EQ(*rest, 0) << line;
    EXPECT_TRUE(samples.emplace(name, value).second) << line;
  }
  ADD_FAILURE() << "no # EOF";
  return samples;
}

TEST_F(Drift, TheProfileLiesBesideTheModelWithItsHash) {
  const Json profile = read_json(at("model.gguf.drift.json"));
  EXPECT_EQ(profile["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(profile["profile"]["identity"]["model_sha256"],
            Json("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"));
  EXPECT_EQ(profile["profile"]["rows"], Json(160));
  for (const char* signal : {"bits_per_byte", "token_distribution", "embedding", "fertility", "length", "refusal"})
    EXPECT_TRUE(profile["profile"]["signals"].contains(signal)) << signal;
  // No word of the training rows, in runs of three.
  const std::string bytes = read_text(at("model.gguf.drift.json"));
  for (const char* gram : {"the blue lamp", "Where is the", "my new coat", "bicycle", "Monday"})
    EXPECT_EQ(bytes.find(gram), std::string::npos) << gram;
  EXPECT_EQ(bytes.find("a key for tests"), std::string::npos);
}

TEST_F(Drift, ProfilesOfTwoLogsMergeToThatOfBoth) {
  const auto profile_of = [](const std::string& name, const std::string& log) {
    write_atomic(at(name + ".jsonl"), log);
    return drift({"profile", "drift.baseline_log=" + at(name + ".jsonl").string(),
                  "drift.profile=" + at(name + ".json").string()});
  };
  const std::string a = log_of(50, 12, 0), b = log_of(51, 9, 4);
  for (const auto& [name, log] : {std::pair("part_a", a), {"part_b", b}, {"whole", a + b}}) {
    const auto made = profile_of(name, log);
    ASSERT_EQ(made.status, 0) << made.errors;
  }
  const auto merged = retort(
      {"drift", "merge", at("part_a.json").string(), at("part_b.json").string(), "--out", at("merged.json").string()});
  EXPECT_EQ(merged.status, 0) << merged.errors;
  EXPECT_EQ(read_text(at("merged.json")), read_text(at("whole.json")));
  const auto cut = drift({"profile", "drift.baseline_log=" + at("part_b.jsonl").string(),
                          "drift.profile=" + at("cut.json").string(), "drift.max_tokens=8"});
  ASSERT_EQ(cut.status, 0) << cut.errors;
  expect_refused(retort({"drift", "merge", at("part_a.json").string(), at("cut.json").string(), "--out",
                         at("none.json").string()}),
                 65, {"part_a.json", "cut.json", "max_tokens"});
  EXPECT_FALSE(fs::exists(at("none.json")));
}

TEST_F(Drift, AModelInTheCacheHasItsProfileAmongTheRuns) {
  fs::create_directories(at("cache"));
  fs::create_symlink(smollm2_path(), at("cache/model.gguf"));
  const auto result = drift({"check", "--data", at("baseline.jsonl"), "model.path=" + at("cache/model.gguf").string()});
  expect_refused(result, 64, {at("runs/orders/model.gguf.drift.json"), "retort drift profile"});
}

TEST_F(Drift, UsualTrafficExits0AndMovedTraffic10) {
  const auto usual = check(log_of(2, 20, 0), {"--out", at("usual").string()});
  EXPECT_EQ(usual.status, 0) << usual.output << usual.errors;
  const auto moved =
      check(log_of(3, 20, 15), {"--out", at("moved").string(), "--metrics", at("m/retort.prom").string()});
  EXPECT_EQ(moved.status, 10) << moved.output << moved.errors;
  EXPECT_NE(moved.output.find("DRIFT"), std::string::npos);
  const Json report = read_json(at("moved/report.json"));
  EXPECT_EQ(report["drift"]["decision"]["alarm"], Json(true));
  EXPECT_EQ(report["drift"]["decision"]["rule"], Json("two_keys"));
  EXPECT_LT(report["drift"]["canaries"]["kl_mean"].get<double>(), 1e-4);
  const Json& signals = report["drift"]["slots"][0]["signals"];
  size_t beyond = 0;
  for (const Json& signal : signals) {
    EXPECT_EQ(signal["alarm"].get<bool>(), signal["significant"].get<bool>() && signal["large"].get<bool>());
    EXPECT_EQ(signal["significant"].get<bool>(), signal["p_adjusted"].get<double>() <= 0.05);
    EXPECT_EQ(signal["large"].get<bool>(), signal["effect"].get<double>() > signal["limit"].get<double>());
    beyond += signal["alarm"].get<bool>();
  }
  EXPECT_GE(beyond, 5u);
  const std::string page = read_text(at("moved/report.html"));
  EXPECT_NE(page.find("Drift: retraining is due"), std::string::npos);
  EXPECT_NE(page.find("Bits per byte"), std::string::npos);
  EXPECT_EQ(page.find("What was trained"), std::string::npos);
  const auto metrics = strict_metrics(read_text(at("m/retort.prom")));
  EXPECT_EQ(metrics.at("retort_drift_alarm{recipe=\"orders\"}"), 1);
  EXPECT_EQ(metrics.at("retort_drift_rows{recipe=\"orders\"}"), 20);
  EXPECT_EQ(metrics.at("retort_drift_signal_alarm{recipe=\"orders\",signal=\"embedding\",detector=\"mmd\"}"), 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(at("m")), {}), 1) << "a temporary file was left";
}

TEST_F(Drift, EvidenceAddsUpOverSlotsAndASlotCountsOnce) {
  const std::string state = at("adds.state").string();
  double before = 0;
  for (int day = 1; day <= 4; ++day) {
    const auto result = check(log_of(10 + static_cast<uint64_t>(day), 20, 14, fmt::format("2026-11-0{}", day)),
                              {"--state", state, "--json", "--out", at("adds").string()});
    const Json drift = parse_json(result.output, "output")["drift"];
    EXPECT_EQ(drift["decision"]["rule"], Json("sequential"));
    const double level = drift["slots"].back()["level"].get<double>();
    EXPECT_GT(level, before);
    EXPECT_EQ(result.status, level >= 365 ? 10 : 0);
    before = level;
    EXPECT_EQ(drift["slots"].size(), static_cast<size_t>(day));
  }
  EXPECT_GE(before, 365);
  const std::string kept = read_text(state);
  const auto again = check(log_of(99, 20, 0, "2026-11-04"), {"--state", state});
  EXPECT_EQ(again.status, 10) << "the answer of then stands";
  EXPECT_NE(again.output.find("checked before, with other rows"), std::string::npos) << again.output;
  EXPECT_EQ(read_text(state), kept);
  expect_refused(check(log_of(98, 20, 0, "2026-10-01"), {"--state", state}), 65, {"slot"});
}

TEST_F(Drift, ALogMayBeCheckedAgainAndGrow) {
  const std::string state = at("grows.state").string(), out = at("grows").string();
  const std::string two = log_of(40, 20, 0, "2026-11-01") + log_of(41, 20, 0, "2026-11-02");
  const auto first = check(two, {"--state", state, "--out", out});
  EXPECT_EQ(first.status, 0) << first.errors;
  const std::string kept = read_text(state);
  const auto again = check(two, {"--state", state, "--out", out});
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_NE(again.output.find("2026-11-01 to 2026-11-02, 2 slots: checked before"), std::string::npos) << again.output;
  EXPECT_EQ(read_text(state), kept);
  const auto grown = check(two + log_of(42, 20, 0, "2026-11-03"), {"--state", state, "--out", out, "--json"});
  EXPECT_EQ(grown.status, 0) << grown.errors;
  const Json slots = parse_json(grown.output, "output")["drift"]["slots"];
  ASSERT_EQ(slots.size(), 3u);
  const Json before = parse_json(kept, "state")["history"];
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(slots[i]["level"], before[i]["level"]);
}

TEST_F(Drift, SlotsComeFromTheRowsTimes) {
  const auto result =
      check(log_of(20, 15, 0, "2026-11-01") + log_of(21, 15, 0, "2026-11-02") + log_of(22, 3, 0, "2026-11-03"),
            {"--json", "--out", at("times").string()});
  const Json drift = parse_json(result.output, "output")["drift"];
  ASSERT_EQ(drift["slots"].size(), 2u);
  EXPECT_EQ(drift["slots"][1]["slot"], Json("2026-11-02"));
  EXPECT_NE(drift["notes"][0].get<std::string>().find("2026-11-03: 3 rows"), std::string::npos);
  const auto named = check(log_of(20, 15, 0), {"--json", "--slot", "2026-12-24", "--out", at("times").string()});
  EXPECT_EQ(parse_json(named.output, "output")["drift"]["slots"][0]["slot"], Json("2026-12-24"));
  expect_refused(check(log_of(20, 15, 0), {"--slot", "Christmas"}), 64, {"Christmas", "2026-11-23"});
  expect_refused(check(log_of(20, 15, 0, "2026-11-01") + log_of(21, 1, 0)), 65, {"traffic.jsonl:16", "no time"});
}

TEST_F(Drift, ACheckThatComparesNothingSaysSo) {
  const auto few = check(log_of(20, 3, 0, "2026-11-01") + log_of(21, 4, 3, "2026-11-02"),
                         {"--out", at("few").string(), "--metrics", at("few.prom").string()});
  EXPECT_EQ(few.status, 13) << few.errors;
  EXPECT_NE(few.output.find("nothing was compared"), std::string::npos) << few.output;
  EXPECT_EQ(few.output.find("no drift"), std::string::npos) << few.output;
  EXPECT_EQ(read_json(at("few/report.json"))["drift"]["decision"]["compared"], Json(false));
  const std::string page = read_text(at("few/report.html"));
  EXPECT_NE(page.find("Nothing was compared"), std::string::npos);
  EXPECT_EQ(page.find("looks like the baseline"), std::string::npos);
  const auto metrics = strict_metrics(read_text(at("few.prom")));
  EXPECT_EQ(metrics.at("retort_drift_slots_checked{recipe=\"orders\"}"), 0);
  EXPECT_EQ(metrics.at("retort_drift_alarm{recipe=\"orders\"}"), 0);
}

TEST_F(Drift, ADeploymentThatAnswersDifferentlyIsNamed) {
  const auto copy = at("other.gguf");
  const auto made = retort({"quantize", at("model.gguf").string(), "--out", copy.string(), "--type", "Q2_K"});
  ASSERT_EQ(made.status, 0) << made.errors;
  const auto result =
      check(log_of(2, 20, 0), {"--deployed", copy.string(), "--json", "--out", at("deployed").string()});
  EXPECT_EQ(result.status, 10) << result.errors;
  const Json drift = parse_json(result.output, "output")["drift"];
  EXPECT_EQ(drift["decision"]["deployment_changed"], Json(true));
  EXPECT_EQ(drift["decision"]["two_keys"], Json(false));
  EXPECT_GT(drift["canaries"]["kl_mean"].get<double>(), 0.01);
}

TEST_F(Drift, BadInputIsRefusedAndNothingIsWritten) {
  const std::vector<std::string> out = {"--out", at("refused").string(), "--metrics", at("refused.prom").string()};
  expect_refused(check("", out), 65, {"traffic.jsonl", "no rows"});
  expect_refused(check(log_of(2, 20, 0) + "{\"prompt\": ", out), 65, {"traffic.jsonl:21"});
  expect_refused(drift({"check"}), 64, {"--data"});
  expect_refused(drift({"check", "--data", at("none.jsonl").string()}), 74, {"none.jsonl"});
  expect_refused(drift({"check", "drift.profile=" + at("none.json").string(), "--data", at("baseline.jsonl").string()}),
                 64, {"none.json", "retort drift profile"});
  expect_refused(drift({"check", "drift.max_tokens=16", "--data", at("baseline.jsonl").string()}), 65, {"max_tokens"});
  expect_refused(drift({"check", "drift.signals=[entropy]", "--data", at("baseline.jsonl").string()}), 64, {"entropy"});
  EXPECT_FALSE(fs::exists(at("refused")));
  EXPECT_FALSE(fs::exists(at("refused.prom")));
}

TEST_F(Drift, AnothersProfileOrKeyIsRefused) {
  Json profile = read_json(at("model.gguf.drift.json"));
  profile["profile"]["rows"] = 161;
  write_json(at("edited.json"), profile);
  expect_refused(
      drift({"check", "drift.profile=" + at("edited.json").string(), "--data", at("baseline.jsonl").string()}), 65,
      {"edited.json", "SHA-256"});
  const auto other = at("other_model.gguf");
  fs::copy_file(fs::canonical(at("model.gguf")), other, fs::copy_options::overwrite_existing);
  fs::permissions(other, fs::perms::owner_write, fs::perm_options::add);
  {
    std::ofstream file(other, std::ios::app | std::ios::binary);  // the same tensors, another file
    file << '\0';
  }
  expect_refused(
      drift({"check", "model.path=" + other.string(), "drift.profile=" + at("model.gguf.drift.json").string(), "--data",
             at("baseline.jsonl").string()}),
      65, {"another model"});
  setenv("RETORT_PROJECT_KEY", "another key, which is as long", 1);
  const auto wrong = check(log_of(2, 20, 0));
  setenv("RETORT_PROJECT_KEY", "short", 1);
  const auto small = check(log_of(2, 20, 0));
  unsetenv("RETORT_PROJECT_KEY");
  const auto none = check(log_of(2, 20, 0));
  write_atomic(at("key"), "a key for tests, longer than 16\n");
  const auto file = check(log_of(2, 20, 0), {"drift.key=" + at("key").string(), "--out", at("keyed").string()});
  setenv("RETORT_PROJECT_KEY", "a key for tests, longer than 16", 1);
  expect_refused(wrong, 65, {"another project key"});
  expect_refused(small, 64, {"16"});
  expect_refused(none, 64, {"RETORT_PROJECT_KEY"});
  EXPECT_EQ(file.status, 0) << file.errors;
}

TEST_F(Drift, WithoutCalibrationTheCheckSaysWhatItCannotJudge) {
  const auto result = check(log_of(2, 20, 0), {"drift.profile=" + at("uncalibrated.json").string(), "--json", "--out",
                                               at("uncalibrated").string()});
  const Json slot = parse_json(result.output, "output")["drift"]["slots"][0];
  EXPECT_NE(slot["skipped"].dump().find("embedding (mmd): needs `retort drift calibrate`"), std::string::npos);
}

TEST_F(Drift, TwoChecksAtOnceLeaveOneWholeState) {
  const std::string state = at("both.state").string();
  write_atomic(at("a.jsonl"), log_of(30, 20, 0));
  std::vector<ProcessResult> results(2);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      results[i] = drift({"check", "--data", at("a.jsonl").string(), "--slot", "2026-11-05", "--state", state, "--out",
                          at("both").string()});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result.status, 0) << result.errors;
  const auto third = check(log_of(30, 20, 0), {"--state", state, "--slot", "2026-11-05", "--json"});
  const Json drift = parse_json(third.output, "output")["drift"];
  EXPECT_EQ(drift["slots"].size(), 1u);
  EXPECT_TRUE(read_json(at("both/report.json")).contains("drift"));
}

TEST_F(Drift, ASignalStopsTheMeasuringAndKeepsWhatWasMeasured) {
  const fs::path log = at("stopped.log"), profile = at("stopped.json"), cache = at("cache of its own");
  constexpr size_t rows = 192;
  Rng rng(90);
  std::string text;
  for (size_t i = 0; i < rows; ++i)
    text += Json{{"prompt", fmt::format("{} {}", question(rng, false), i)}}.dump() + "\n";
  write_atomic(at("long.jsonl"), text);
  const auto measured = [&] {
    std::vector<std::string> keys;
    if (!fs::exists(cache / "drift")) return keys;
    for (const auto& entry : fs::directory_iterator(cache / "drift")) {
      std::ifstream lines(entry.path());
      for (std::string line; std::getline(lines, line);)
        if (line.ends_with('}')) keys.push_back(line.substr(0, line.find(' ')));
    }
    return keys;
  };
  const std::vector<std::string> command = {"drift", "profile", at("recipe.yaml").string(),
                                            "drift.baseline_log=" + at("long.jsonl").string(),
                                            "drift.profile=" + profile.string()};
  setenv("RETORT_CACHE", cache.c_str(), 1);
  {
    Running running(command, log.string());
    EXPECT_TRUE(running.until([&] { return !measured().empty(); })) << read_text(log);
    running.send(SIGTERM);
    EXPECT_EQ(running.wait(), 75) << read_text(log);
  }
  EXPECT_NE(read_text(log).find("stopped by a signal after"), std::string::npos) << read_text(log);
  EXPECT_FALSE(fs::exists(profile));
  EXPECT_LT(measured().size(), rows);
  const ProcessResult again = retort(command);
  setenv("RETORT_CACHE", at("cache").c_str(), 1);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(fs::exists(profile));
  // Each row was measured once.
  const std::vector<std::string> keys = measured();
  EXPECT_EQ(keys.size(), rows);
  EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()).size(), rows);
}

TEST_F(Drift, ASignalStopsTheResampling) {
  const fs::path log = at("resampling.log"), profile = at("resampled.json");
  fs::copy_file(at("uncalibrated.json"), profile);
  const std::string before = read_text(profile);
  Running running({"drift", "calibrate", at("recipe.yaml").string(), "drift.profile=" + profile.string(),
                   "drift.calibration.resamples=1000000"},
                  log.string());
  // The rows come from the cache; then nothing is heard for as long as a million resamples take.
  ASSERT_TRUE(running.until([&] { return fs::exists(log) && read_text(log).find("baseline") != std::string::npos; }));
  running.send(SIGTERM);
  EXPECT_EQ(running.wait(), 75) << read_text(log);
  EXPECT_NE(read_text(log).find("while resampling"), std::string::npos) << read_text(log);
  EXPECT_EQ(read_text(profile), before);
}

TEST_F(Drift, AFullDiskLeavesTheOldFiles) {
  write_atomic(at("full.prom"), "old\n");
  write_atomic(at("full.jsonl"), log_of(2, 20, 0));
  // Files of at most 4 blocks of 1,024 bytes can be written: as a full disk, at any user.
  const std::string command = fmt::format(
      "ulimit -f 4; trap '' XFSZ; exec {} drift check {} --quiet --data {} --metrics {} --out {}", RETORT_PROGRAM,
      at("recipe.yaml").string(), at("full.jsonl").string(), at("full.prom").string(), at("full").string());
  const auto result = run_program({"bash", "-c", command});
  EXPECT_EQ(result.status, 74) << result.errors;
  EXPECT_EQ(read_text(at("full.prom")), "old\n");
  EXPECT_FALSE(fs::exists(at("full/report.json")));
}

}  // namespace
}  // namespace retort
