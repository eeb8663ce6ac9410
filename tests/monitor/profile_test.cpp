// Profiles hold no text, merge to the bit, and are refused when they are another's, edited or damaged.
#include "monitor/profile.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/hash.h"
#include "core/rng.h"
#include "monitor/drift_check.h"
#include "monitor/open_metrics.h"
#include "monitor/signal.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

const std::string kKey = "the project's key, 32 bytes long";

TEST(QuantileSketch, QuantilesAreWithinHalfAPercent) {
  Rng rng(3);
  std::vector<double> values;
  QuantileSketch sketch;
  for (int i = 0; i < 5000; ++i) {
    values.push_back(std::exp(8 * rng.uniform() - 4));
    sketch.add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (double q : {0.001, 0.05, 0.5, 0.95, 0.999}) {
    const double exact = values[static_cast<size_t>(std::ceil(q * 5000)) - 1];
    EXPECT_NEAR(sketch.quantile(q), exact, 1.0001 * QuantileSketch::kAccuracy * exact) << q;
  }
}

TEST(QuantileSketch, SharesUpToABucketsEdgeAreExact) {
  QuantileSketch sketch;
  for (int i = 0; i < 70; ++i) sketch.add(0);
  for (int i = 0; i < 30; ++i) sketch.add(1);
  const Values values = sketch.values();
  EXPECT_EQ(values.counts, (std::vector<int64_t>{70, 30}));
  EXPECT_EQ(values.distinct[0], 0);
  EXPECT_NEAR(values.distinct[1], 1, 0.005);
  EXPECT_EQ(values.total, 100);
  expect_error(Exit::internal, {"signal"}, [&] { sketch.add(-1); });
  expect_error(Exit::internal, {"signal"}, [&] { sketch.add(NAN); });
}

/// Measures as a model would give them.
std::vector<RowMeasure> rows(uint64_t seed, size_t n, double shift = 0) {
  Rng rng(seed);
  const TokenHash hash(kKey);
  std::vector<RowMeasure> rows(n);
  for (RowMeasure& row : rows) {
    row.numbers["bits_per_byte"] = 1 + rng.uniform() + shift;
    if (rng.below(2) == 0) row.numbers["refusal"] = static_cast<double>(rng.below(2));
    std::vector<int32_t> ids;
    for (int i = 0; i < 30; ++i)
      ids.push_back(static_cast<int32_t>(rng.below(500) + static_cast<uint64_t>(100 * shift)));
    row.counts["token_distribution"] = hash.counts(ids);
    for (size_t f = 0; f < 2 * kFrequencies; ++f)
      row.features["embedding"].push_back(
          static_cast<int32_t>((rng.uniform() - 0.5 + shift / 10) * 0.06 / kFeatureUnit));
  }
  return rows;
}

Profile build(const std::vector<RowMeasure>& rows) {
  Profile profile;
  profile.identity = {"m.gguf", std::string(64, 'a'), "t", key_id(kKey), 256, 0.5, 7, 32};
  profile.canaries = Canaries{"texts", {{{"token", 0.5}}}};
  for (const RowMeasure& row : rows) profile.add(row);
  return profile;
}

TEST(Profile, MergeIsTheProfileOfBothToTheBit) {
  const auto a = rows(1, 700), b = rows(2, 300);
  auto both = b;  // in another order than the merge
  both.insert(both.end(), a.begin(), a.end());
  Profile merged = build(a);
  merged.merge(build(b));
  EXPECT_EQ(merged.to_json().dump(), build(both).to_json().dump());
  EXPECT_EQ(merged.rows, 1000);
  Profile empty = build({});
  empty.merge(build(a));
  EXPECT_EQ(empty.to_json().dump(), build(a).to_json().dump());
}

TEST(Profile, OnlyProfilesOfOneModelAndKeyMerge) {
  auto refused = [](const std::string& part, const std::function<void(Profile&)>& change) {
    Profile a = build(rows(1, 5)), b = build(rows(2, 5));
    change(b);
    expect_error(Exit::bad_input, {part}, [&] { a.merge(b); });
  };
  refused("another model", [](Profile& p) { p.identity.model_sha256 = std::string(64, 'b'); });
  refused("another project key", [](Profile& p) { p.identity.key = "x"; });
  refused("max_tokens", [](Profile& p) { p.identity.max_tokens = 5; });
  refused("another version", [](Profile& p) { p.identity.gamma = 2; });
  refused("canaries", [](Profile& p) { p.canaries->texts = "others"; });
}

TEST(Profile, IsReadAsItWasWritten) {
  TemporaryFolder folder;
  Profile profile = build(rows(1, 200));
  DriftOptions options;
  options.calibration = {.resamples = 99, .sizes = {20, 50}};
  calibrate(profile, rows(1, 200), options);
  const std::string hash = write_profile(folder / "p.json", profile);
  const auto [read, read_hash] = read_profile(folder / "p.json");
  EXPECT_EQ(read_hash, hash);
  EXPECT_EQ(read.to_json().dump(), profile.to_json().dump());
  EXPECT_EQ(read.nulls.size(), 6u) << "two numbers through ks and jensen_shannon, the tokens, the vectors";
  EXPECT_EQ(read.nulls.at("bits_per_byte/ks").size(), 2u);
}

TEST(Profile, EditedOrDamagedFilesAreRefused) {
  TemporaryFolder folder;
  const auto path = folder / "p.json";
  write_profile(path, build(rows(1, 50)));
  const std::string text = read_text(path);
  std::string edited = text;
  const size_t at = edited.find("\"count\":50");
  ASSERT_NE(at, std::string::npos);
  edited.replace(at, 10, "\"count\":51");
  write_atomic(path, edited);
  expect_error(Exit::bad_input, {"p.json", "changed or damaged"}, [&] { read_profile(path); });
  write_atomic(path, text.substr(0, text.size() / 2));
  expect_error(Exit::bad_input, {"p.json"}, [&] { read_profile(path); });
  // Whoever edits the hash too meets the checks of each part.
  auto with = [&](const std::function<void(Json&)>& change) {
    Json json = parse_json(text, "p.json");
    change(json["profile"]);
    json["sha256"] = sha256_hex(json["profile"].dump());
    write_atomic(path, json.dump());
    expect_error(Exit::bad_input, {"p.json"}, [&] { read_profile(path); });
  };
  with([](Json& p) { p["schema"] = 2; });
  with([](Json& p) { p["signals"] = 5; });
  with([](Json& p) { p["signals"]["mood"] = p["signals"]["bits_per_byte"]; });
  with([](Json& p) { p["signals"]["bits_per_byte"]["rows"] = 49; });
  with([](Json& p) { p["signals"]["bits_per_byte"]["numbers"]["buckets"][0][1] = -1; });
  with([](Json& p) { p["signals"]["bits_per_byte"]["numbers"]["buckets"][0][0] = 1e9; });
  with([](Json& p) { p["signals"]["token_distribution"]["counts"].erase(0); });
  with([](Json& p) { p["signals"]["token_distribution"]["counts"][5] = -3; });
  with([](Json& p) { p["signals"]["embedding"]["features"]["sum"][3] = 1e300; });
  with([](Json& p) { p["canaries"]["top"][0]["token"] = 1.5; });
  with([](Json& p) { p["identity"].erase("key"); });
}

TEST(Profile, HoldsNoTextAndNoTokenIds) {
  // Rows through the real tokenizer: neither their words, nor their runs of letters, nor their ids may be found.
  const Tokenizer& tokenizer = smollm2();
  const std::string text = "Secret: patient Zebulon Quarrington takes vortioxetine against melancholy.";
  const TokenHash hash(kKey);
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  std::vector<RowMeasure> all = rows(1, 60);
  for (RowMeasure& row : all) row.counts["token_distribution"] = hash.counts(ids);
  TemporaryFolder folder;
  write_profile(folder / "p.json", build(all));
  const std::string bytes = read_text(folder / "p.json");
  for (size_t i = 0; i + 6 <= text.size(); ++i) EXPECT_EQ(bytes.find(text.substr(i, 6)), std::string::npos) << i;
  // The only place where ids could stand is the counts: bucket numbers are places in a list, and the list is the same
  // for another order of the ids; with another key the same tokens lie elsewhere.
  const Json counts = parse_json(bytes, "p")["profile"]["signals"]["token_distribution"]["counts"];
  ASSERT_EQ(counts.size(), static_cast<size_t>(TokenHash::kBuckets));
  const TokenHash other("another key of a different project");
  size_t moved = 0, plain = 0;
  for (int32_t id : ids) {
    EXPECT_GT(counts[static_cast<size_t>(hash.bucket(id))].get<int64_t>(), 0);
    moved += counts[static_cast<size_t>(other.bucket(id))] == Json(0);
    plain += hash.bucket(id) == id % TokenHash::kBuckets;
  }
  EXPECT_GT(moved, ids.size() * 9 / 10);
  EXPECT_LT(plain, 2u);
  EXPECT_EQ(bytes.find(kKey), std::string::npos);
}

TEST(Profile, SizeDoesNotGrowWithTheRows) {
  auto size = [](size_t n) { return build(rows(4, n)).to_json().dump().size(); };
  const size_t small = size(500), large = size(5000);
  EXPECT_LT(large, 64u << 10);
  EXPECT_LT(static_cast<double>(large), 1.4 * static_cast<double>(small));
}

DriftOptions options() {
  DriftOptions options;
  options.calibration = {.resamples = 199, .block = 1, .sizes = {50}};
  return options;
}

TEST(DriftCheck, UsualRowsPassAndMovedRowsTurnBothKeys) {
  const auto usual = rows(1, 600);
  Profile baseline = build(usual);
  calibrate(baseline, usual, options());
  Profile same = build(rows(9, 50)), moved = build(rows(9, 50, 0.4));
  const SlotCheck quiet = check_slot(baseline, same, options()), loud = check_slot(baseline, moved, options());
  EXPECT_FALSE(quiet.two_keys());
  EXPECT_TRUE(loud.two_keys());
  ASSERT_EQ(loud.checks.size(), 6u);
  for (const SignalCheck& check : loud.checks) {
    EXPECT_TRUE(check.calibrated);
    if (check.signal == "refusal") continue;  // it did not move
    EXPECT_TRUE(check.verdict.significant) << check.signal;
    // The made-up vectors move by less than mmd's limit: significant, and no alarm.
    EXPECT_EQ(check.verdict.alarm(), check.signal != "embedding") << check.signal;
    EXPECT_DOUBLE_EQ(check.detection.p_value, 1.0 / 200);
    EXPECT_GT(check.detection.statistic, check.threshold);
  }
  EXPECT_GT(loud.evidence[0], 10 * quiet.evidence[0]);
}

TEST(DriftCheck, WithoutCalibrationOnlyIndependentRowsAreJudged) {
  const Profile baseline = build(rows(1, 600)), slot = build(rows(9, 50));
  const SlotCheck check = check_slot(baseline, slot, options());
  EXPECT_EQ(check.checks.size(), 4u);  // the two numbers; tokens of a row depend on each other
  for (const SignalCheck& one : check.checks) EXPECT_FALSE(one.calibrated);
  ASSERT_EQ(check.skipped.size(), 2u);
  EXPECT_NE(check.skipped[0].find("calibrate"), std::string::npos);
}

TEST(DriftCheck, SignalsThatTheSlotLacksAreSkippedWithTheReason) {
  const auto usual = rows(1, 100);
  auto few = rows(2, 30);
  for (RowMeasure& row : few) row.numbers.erase("refusal");
  const SlotCheck check = check_slot(build(usual), build(few), options());
  EXPECT_TRUE(std::any_of(check.skipped.begin(), check.skipped.end(),
                          [](const std::string& text) { return text.starts_with("refusal: 0 rows"); }));
}

TEST(DriftCheck, ASignalSpeaksOnceThroughHoweverManyDetectors) {
  const auto usual = rows(1, 600);
  auto with = [&](const std::vector<std::string>& kinds) {
    DriftOptions chosen = options();
    for (const std::string& kind : kinds) chosen.detectors.emplace_back().kind = kind;
    Profile baseline = build(usual);
    calibrate(baseline, usual, chosen);
    return check_slot(baseline, build(rows(9, 50, 0.02)), chosen);
  };
  const SlotCheck twice = with({"ks", "jensen_shannon", "mmd"});
  std::map<std::string, std::vector<Evidence>> of_signal;
  for (const SignalCheck& check : twice.checks)
    of_signal[check.signal].push_back(evidence_of_p_value(check.detection.p_value));
  ASSERT_EQ(of_signal.at("bits_per_byte").size(), 2u);
  ASSERT_EQ(of_signal.at("embedding").size(), 1u);
  std::vector<Evidence> signals;
  for (const auto& [name, evidence] : of_signal) signals.push_back(merge_evidence(evidence));
  EXPECT_EQ(twice.evidence, merge_evidence(signals));
  // A detector's null does not depend on which others share its draws.
  const SlotCheck alone = with({"jensen_shannon"});
  for (const SignalCheck& check : alone.checks) {
    const auto same = std::find_if(twice.checks.begin(), twice.checks.end(), [&](const SignalCheck& one) {
      return one.signal == check.signal && one.detection.name == check.detection.name;
    });
    ASSERT_NE(same, twice.checks.end());
    EXPECT_EQ(same->detection.p_value, check.detection.p_value) << check.signal;
  }
}

TEST(DriftCheck, ASignalOfOneRowIsLeftOutOfTheCalibration) {
  auto usual = rows(1, 100);
  for (RowMeasure& row : usual) row.numbers.erase("refusal");
  usual[7].numbers["refusal"] = 1;
  Profile baseline = build(usual);
  const auto skipped = calibrate(baseline, usual, options());
  ASSERT_EQ(skipped.size(), 1u);
  EXPECT_TRUE(skipped[0].starts_with("refusal: one row")) << skipped[0];
  EXPECT_FALSE(baseline.nulls.contains("refusal/ks"));
  EXPECT_TRUE(baseline.nulls.contains("bits_per_byte/ks"));
}

TEST(DriftCheck, CalibrationWantsTheProfilesRows) {
  Profile baseline = build(rows(1, 100));
  expect_error(Exit::bad_input, {"100", "99"}, [&] { calibrate(baseline, rows(1, 99), options()); });
}

TEST(DriftCheck, AFallInAccuracyIsEvidence) {
  auto labelled = [](size_t n, size_t right) {
    std::vector<RowMeasure> rows(n);
    for (size_t i = 0; i < n; ++i) rows[i].numbers["accuracy"] = i < right;
    return build(rows);
  };
  const Profile baseline = labelled(1000, 900);
  const SlotCheck same = check_slot(baseline, labelled(50, 45), options()),
                  worse = check_slot(baseline, labelled(50, 32), options());
  EXPECT_LT(same.evidence[3], 1);
  EXPECT_GT(worse.evidence[3], 20);
  // Of the rows that are right, to the row: the sketch's own value for 1 is half a percent less.
  EXPECT_EQ(worse.checks[0].mean, 0.64);
  EXPECT_EQ(worse.checks[0].baseline_mean, 0.9);
  EXPECT_EQ(worse.checks[0].baseline_high, 1);
  EXPECT_EQ(same.evidence, evidence_of_accuracy(45, 50, accuracy_lower_bound(0.9, 1000)));
  const Profile all_right = labelled(500, 500), most = labelled(500, 450);
  EXPECT_EQ(all_right.signals.at("accuracy").mean("accuracy"), 1);
  EXPECT_EQ(check_slot(baseline, all_right, options()).checks[0].mean, 1);
  EXPECT_EQ(check_slot(baseline, most, options()).evidence,
            evidence_of_accuracy(450, 500, accuracy_lower_bound(0.9, 1000)));
}

TEST(Signals, AreTakenFromTheRow) {
  const TrafficRow row{"log:1", "a b c d", "one two three four one two three four", "one", std::nullopt};
  const std::vector<int32_t> ids = smollm2().encode("naïve 𒀀 words", false);
  const std::vector<float> state = {1, 2};
  const SignalInput input{row, smollm2(), ids, 10, -20 * std::log(2.0), state};
  auto number = [&](const char* name) { return signal_kinds().at(name)->number(input); };
  EXPECT_DOUBLE_EQ(*number("bits_per_byte"), 2);
  EXPECT_DOUBLE_EQ(*number("fertility"), static_cast<double>(ids.size()) / 3);
  EXPECT_GT(*number("byte_fallback"), 0);
  EXPECT_LT(*number("byte_fallback"), 1);
  EXPECT_EQ(*number("length"), 7);
  EXPECT_EQ(*number("answer_length"), 37);
  EXPECT_EQ(*number("refusal"), 0);
  EXPECT_DOUBLE_EQ(*number("repetition"), 1 - 4.0 / 5);
  EXPECT_EQ(*number("accuracy"), 0);
  const TrafficRow bare{"log:2", "a", std::nullopt, "a", std::nullopt};
  const SignalInput nothing{bare, smollm2(), ids, 0, 0, state};
  for (const char* name : {"bits_per_byte", "answer_length", "refusal", "repetition", "accuracy"})
    EXPECT_FALSE(signal_kinds().at(name)->number(nothing)) << name;
  EXPECT_EQ(signal_kinds().at("embedding")->vector(input), state);
  EXPECT_EQ(signal_kinds().at("token_distribution")->tokens(input), ids);
}

TEST(OpenMetrics, TextIsWhatTheFormatSays) {
  OpenMetrics metrics;
  metrics.gauge("retort_drift_alarm", "1 when \"it\" is due.\nElse 0, in C:\\.");
  metrics.sample({{"recipe", "a\"b\\c\nd"}}, 1);
  metrics.sample({}, 0.5);
  metrics.gauge("retort_drift_level", "A level.");
  metrics.sample({{"recipe", "x"}, {"slot", "2026-11-23"}}, INFINITY);
  EXPECT_EQ(metrics.text(),
            "# TYPE retort_drift_alarm gauge\n"
            "# HELP retort_drift_alarm 1 when \\\"it\\\" is due.\\nElse 0, in C:\\\\.\n"
            "retort_drift_alarm{recipe=\"a\\\"b\\\\c\\nd\"} 1\n"
            "retort_drift_alarm 0.5\n"
            "# TYPE retort_drift_level gauge\n"
            "# HELP retort_drift_level A level.\n"
            "retort_drift_level{recipe=\"x\",slot=\"2026-11-23\"} +Inf\n"
            "# EOF\n");
  expect_error(Exit::internal, {"name"}, [&] { metrics.gauge("retort_drift_level", "twice"); });
  expect_error(Exit::internal, {"name"}, [&] { metrics.gauge("1st", "digit"); });
}

}  // namespace
}  // namespace retort
