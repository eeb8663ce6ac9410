// What detectors say of samples that are empty, constant, tied, not numbers, or do not fit each other.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/yaml.h"
#include "monitor/binning.h"
#include "monitor/detector.h"
#include "monitor/drift_options.h"

namespace retort {
namespace {

DetectorOptions with(const std::string& kind, const std::string& profile = "retort") {
  return {.kind = kind, .profile = profile, .limit = {}, .permutations = 99, .gamma = {}};
}

template <typename Action>
void expect_error(Exit exit, const std::string& words, const Action& action) {
  try {
    action();
    ADD_FAILURE() << "no error: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), exit) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

/// Kinds and profiles that take values.
std::vector<DetectorOptions> of_values() {
  std::vector<DetectorOptions> all;
  for (const auto& [name, kind] : detector_kinds())
    for (const std::string& profile : kind->profiles)
      if (kind->of_values != nullptr) all.push_back(with(name, profile));
  return all;
}

TEST(DetectorInput, KindsAreThoseOfTheIssue) {
  for (const char* kind :
       {"psi", "ks", "chi_square", "jensen_shannon", "wasserstein", "energy", "mmd", "domain_classifier"})
    EXPECT_EQ(detector_kinds().count(kind), 1U) << kind;
  EXPECT_EQ(of_values().size(), 12U);
}

TEST(DetectorInput, NotANumberIsRefused) {
  expect_error(Exit::bad_input, "number 1 of the sample is nan", [] { values_of(std::vector<double>{1, NAN}); });
  expect_error(Exit::bad_input, "inf", [] { values_of(std::vector<double>{INFINITY}); });
  const std::vector<double> good(40, 1.0), bad = {1, 2, NAN, 4};
  for (const char* kind : {"mmd", "domain_classifier"})
    expect_error(Exit::bad_input, "nan", [&] { compare(Vectors{good, 2}, Vectors{bad, 2}, with(kind)); });
}

TEST(DetectorInput, NumbersAndCountsThatOverflowAreRefused) {
  expect_error(Exit::bad_input, "1e+100", [] { values_of(std::vector<double>{1e200, -1e200}); });
  const std::vector<double> good(40, 1.0), large(40, -1e300);
  for (const char* kind : {"mmd", "domain_classifier"})
    expect_error(Exit::bad_input, "1e+100", [&] { compare(Vectors{good, 2}, Vectors{large, 2}, with(kind)); });
  const int64_t half = int64_t{1} << 51, most = std::numeric_limits<int64_t>::max();
  const std::vector<int64_t> few = {1, 1, 1}, many = {half, half, 1};
  for (const std::vector<int64_t>& counts : {many, {most, most, most}}) {
    expect_error(Exit::bad_input, "2^52", [&] { values_of(std::vector<double>{1, 2, 3}, counts); });
    for (const char* kind : {"chi_square", "psi", "jensen_shannon"}) {
      expect_error(Exit::bad_input, "2^52", [&] { compare(few, counts, with(kind)); });
      expect_error(Exit::bad_input, "2^52", [&] { compare(counts, few, with(kind)); });
    }
  }
}

TEST(DetectorInput, NumbersAndCountsUpToTheLimitGiveAnAnswer) {
  // Statistics only, and p-values where they have a law: a permutation test remembers every row.
  const std::vector<int64_t> counts = {int64_t{1} << 51, int64_t{1} << 51};
  const Values reference = values_of(std::vector<double>{-1e100, 1e100}, counts);
  const Values current = values_of(std::vector<double>{-1e-300, 1e100}, counts);
  for (DetectorOptions options : of_values()) {
    options.p_value = options.kind == "ks" || (options.kind == "psi" && options.profile == "retort");
    const Detection detection = compare(reference, current, options);
    EXPECT_TRUE(std::isfinite(detection.statistic)) << detection.name;
    EXPECT_TRUE(std::isfinite(detection.effect)) << detection.name;
    if (options.p_value) {
      EXPECT_LE(detection.p_value, 1e-100) << detection.name;
      EXPECT_GT(detection.p_value, 0) << detection.name;
    }
    options.p_value = true;
    if (options.profile != "retort")
      expect_error(Exit::bad_input, "calibrate a null", [&] { compare(reference, current, options); });
  }
  const std::vector<int64_t> turned = {int64_t{1} << 50, int64_t{3} << 50};
  for (const char* kind : {"chi_square", "psi", "jensen_shannon"}) {
    const Detection detection = compare(counts, turned, with(kind));
    EXPECT_GT(detection.effect, detection.limit) << kind;
    EXPECT_GT(detection.p_value, 0) << kind;
    EXPECT_LE(detection.p_value, 1e-100) << kind;
  }
}

TEST(DetectorInput, EmptySamplesAreRefused) {
  const Values one = values_of(std::vector<double>{1, 2}), none;
  for (const DetectorOptions& options : of_values()) {
    expect_error(Exit::bad_input, "0 rows in the baseline and 2", [&] { compare(none, one, options); });
    expect_error(Exit::bad_input, "2 rows in the baseline and 0", [&] { compare(one, none, options); });
  }
  const std::vector<int64_t> zeros = {0, 0}, some = {1, 1};
  for (const char* kind : {"chi_square", "psi", "jensen_shannon"})
    expect_error(Exit::bad_input, "0 rows", [&] { compare(zeros, some, with(kind)); });
}

TEST(DetectorInput, SamplesMustFitEachOther) {
  const std::vector<int64_t> two = {1, 2}, three = {1, 2, 3}, negative = {1, -2};
  expect_error(Exit::bad_input, "2 categories", [&] { compare(two, three, with("chi_square")); });
  expect_error(Exit::bad_input, "-2", [&] { compare(two, negative, with("chi_square")); });
  const std::vector<double> x(12, 1.0), y(12, 2.0), broken(11, 1.0);
  expect_error(Exit::bad_input, "rows of 2", [&] { compare(Vectors{x, 2}, Vectors{y, 3}, with("mmd")); });
  expect_error(Exit::bad_input, "whole", [&] { compare(Vectors{x, 2}, Vectors{broken, 2}, with("mmd")); });
  expect_error(Exit::bad_input, "two a sample", [&] { compare(Vectors{x, 12}, Vectors{y, 2 * 6}, with("mmd")); });
  expect_error(Exit::bad_input, "hold some out", [&] {
    compare(Vectors{x, 12}, Vectors{y, 12}, with("domain_classifier"));
  });
  expect_error(Exit::bad_input, "3 values with 2 counts", [&] {
    values_of(std::vector<double>{1, 2, 3}, std::vector<int64_t>{1, 2});
  });
  expect_error(Exit::bad_input, "count 0", [&] { values_of(std::vector<double>{1}, std::vector<int64_t>{0}); });
  const std::vector<double> wide(2 * 1100, 1.0);
  expect_error(Exit::bad_input, "1024", [&] {
    compare(Vectors{wide, 1100}, Vectors{wide, 1100}, with("domain_classifier"));
  });
}

TEST(DetectorInput, UnknownNamesAreRefusedWithThoseThatExist) {
  const Values one = values_of(std::vector<double>{1, 2});
  const std::vector<int64_t> counts = {1, 2};
  expect_error(Exit::usage, "psi", [&] { compare(one, one, with("psy")); });
  expect_error(Exit::usage, "nannyml", [&] { compare(one, one, with("jensen_shannon", "nanny")); });
  expect_error(Exit::usage, "does not take values", [&] { compare(one, one, with("mmd")); });
  expect_error(Exit::usage, "does not take counts", [&] { compare(counts, counts, with("ks")); });
}

TEST(DetectorInput, EqualAndConstantSamplesGiveNoAlarm) {
  const Values constant = values_of(std::vector<double>(30, 4.0)), single = values_of(std::vector<double>{4.0});
  for (const DetectorOptions& options : of_values()) {
    for (const Values* current : {&constant, &single}) {
      const Detection detection = compare(constant, *current, options);
      EXPECT_NEAR(detection.statistic, 0, 1e-12) << detection.name;
      EXPECT_NEAR(detection.effect, 0, 1e-12) << detection.name;
      EXPECT_EQ(detection.p_value, 1) << detection.name;
      EXPECT_GT(detection.limit, 0) << detection.name;
    }
  }
  const std::vector<double> rows(60, 2.0);
  const Detection mmd = compare(Vectors{rows, 2}, Vectors{rows, 2}, with("mmd"));
  EXPECT_EQ(mmd.p_value, 1);
  EXPECT_EQ(mmd.effect, 0);
  const Detection auc = compare(Vectors{rows, 2}, Vectors{rows, 2}, with("domain_classifier"));
  EXPECT_EQ(auc.statistic, 0.5);
  EXPECT_EQ(auc.p_value, 1);
  const Detection chi = compare(std::vector<int64_t>{0, 9}, std::vector<int64_t>{0, 5}, with("chi_square"));
  EXPECT_EQ(chi.statistic, 0);
  EXPECT_EQ(chi.p_value, 1);
}

TEST(DetectorInput, OneRowAndOneCategoryGiveAnAnswer) {
  const Values one = values_of(std::vector<double>{3.0}), other = values_of(std::vector<double>{5.0});
  for (const DetectorOptions& options : of_values()) {
    const Detection detection = compare(one, other, options);
    EXPECT_TRUE(std::isfinite(detection.statistic)) << detection.name;
    EXPECT_TRUE(std::isfinite(detection.effect)) << detection.name;
    EXPECT_GE(detection.p_value, 0.2) << detection.name;  // two rows say nothing
    EXPECT_LE(detection.p_value, 1) << detection.name;
  }
  for (const char* kind : {"chi_square", "psi", "jensen_shannon"}) {
    const Detection detection = compare(std::vector<int64_t>{7}, std::vector<int64_t>{3}, with(kind));
    EXPECT_EQ(detection.statistic, 0) << kind;
    EXPECT_EQ(detection.p_value, 1) << kind;
  }
}

TEST(DetectorInput, AConstantBaselineSeesAChangeToEitherSide) {
  const Values constant = values_of(std::vector<double>(30, 4.0));
  for (double other : {3.0, 5.0}) {
    for (const char* kind : {"psi", "ks", "jensen_shannon", "wasserstein", "energy"}) {
      const Detection detection = compare(constant, values_of(std::vector<double>(30, other)), with(kind));
      EXPECT_LE(detection.p_value, 0.011) << kind << other;
      EXPECT_GT(detection.effect, detection.limit) << kind << other;
      EXPECT_TRUE(std::isfinite(detection.effect)) << kind;
    }
  }
}

TEST(DetectorInput, RepeatedValuesGetBinsOfTheirOwn) {
  // Two thirds zeros: what falls below, on and above them are different bins.
  std::vector<double> sample(20, 0.0);
  for (int i = 1; i <= 10; ++i) sample.push_back(i);
  const Values values = values_of(sample);
  const std::vector<double> edges = quantile_edges(values, 10);
  const std::vector<double> probe = {-1, 0, 0.5};
  std::vector<int64_t> counts = bin_counts(values_of(probe), edges);
  EXPECT_EQ(counts[0], 1);
  EXPECT_EQ(counts[1], 1);
  EXPECT_EQ(counts[2], 1);
  counts = bin_counts(values, edges);
  EXPECT_EQ(counts[0], 0);
  EXPECT_EQ(counts[1], 20);
}

TEST(DetectorInput, CountsStandForRepeatedRows) {
  const std::vector<double> rows = {1, 1, 2, 5, 5, 5}, other = {1, 2, 2, 3};
  const Values weighted = values_of(std::vector<double>{5, 1, 2}, std::vector<int64_t>{3, 2, 1});
  for (const DetectorOptions& options : of_values()) {
    const Detection a = compare(values_of(rows), values_of(other), options);
    const Detection b = compare(weighted, values_of(other), options);
    EXPECT_EQ(a.statistic, b.statistic) << a.name;
    EXPECT_EQ(a.p_value, b.p_value) << a.name;
  }
}

TEST(DetectorInput, RecipesNameProfilesAndLimits) {
  const auto options = from_yaml<DetectorOptions>(Yaml::parse("kind: psi\nprofile: frouros\nlimit: 0.3\n", "r.yaml"));
  const Values one = values_of(std::vector<double>{1, 2, 3});
  const Detection detection = compare(one, one, options);
  EXPECT_EQ(detection.name, "psi.frouros");
  EXPECT_EQ(detection.limit, 0.3);
  expect_error(Exit::usage, "evidently",
               [] { from_yaml<DetectorOptions>(Yaml::parse("{kind: psi, profile: x}", "r")); });
  expect_error(Exit::usage, "psi", [] { from_yaml<DetectorOptions>(Yaml::parse("{kind: psy}", "r")); });
}

TEST(DetectorInput, MeansHaveNoPeersProfile) {
  FeatureMean a;
  a.rows = 30;
  a.gamma = 1;
  a.dimensions = 2;
  a.sum = std::vector<double>(8, 3);
  EXPECT_EQ(compare(a, a, with("mmd")).limit, detector_kind("mmd").limit);
  for (const char* profile : {"evidently", "frouros"})
    expect_error(Exit::usage, profile, [&] { compare(a, a, with("mmd", profile)); });
}

TEST(DetectorInput, ARecipesDetectorsTakeASignalThatIsWatched) {
  const auto read = [](const std::string& keys) {
    return from_yaml<DriftOptions>(Yaml::parse("baseline_log: log.jsonl\n" + keys, "drift.yaml"));
  };
  for (const char* detector : {"domain_classifier", "mmd, profile: evidently", "mmd, profile: frouros"})
    expect_error(Exit::usage,
                 "takes none of the signals (all): a profile keeps numbers, counts of tokens and a mean of "
                 "vectors' features, no rows; these do: chi_square, energy, jensen_shannon, ks, mmd, psi, wasserstein",
                 [&] { read(fmt::format("detectors: [{{kind: ks}}, {{kind: {}}}]", detector)); });
  expect_error(Exit::usage, "ks takes none of the signals (embedding)",
               [&] { read("signals: [embedding]\ndetectors: [{kind: ks}]"); });
  EXPECT_EQ(read("signals: [embedding]\ndetectors: [{kind: mmd}]").detectors.size(), 1u);
  EXPECT_EQ(read("detectors: [{kind: psi, profile: evidently}, {kind: chi_square}]").detectors.size(), 2u);
}

}  // namespace
}  // namespace retort
