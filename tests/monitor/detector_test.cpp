// Detectors against scipy, Evidently, Frouros and NannyML's definition (golden/make_drift.py), and by what their
// p-values and effects are said to mean.
#include "monitor/detector.h"

#include <gtest/gtest.h>

#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "monitor/permutation.h"
#include "tests/monitor/normal.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(std::filesystem::path(RETORT_GOLDEN) / "drift.json");
  return json;
}

double phi_sequence(int i, double phi) { return std::fmod(i * phi, 1.0); }
constexpr double kPhi1 = 0.6180339887498949, kPhi2 = 0.7548776662466927, kPhi3 = 0.5698402909980532;

struct Inputs {
  std::vector<double> reference, current, ties_reference, ties_current, x, y;
  std::vector<int64_t> categories_reference = std::vector<int64_t>(5), categories_current = std::vector<int64_t>(5);
};

const Inputs& inputs() {
  static const Inputs inputs = [] {
    Inputs in;
    for (int i = 1; i <= 500; ++i) {
      in.reference.push_back(phi_sequence(i, kPhi1) * 10);
      ++in.categories_reference[static_cast<size_t>(phi_sequence(i, kPhi1) * 5)];
      in.ties_reference.push_back(std::floor(std::pow(phi_sequence(i, kPhi1), 2) * 40));
    }
    for (int j = 1; j <= 300; ++j) {
      in.current.push_back(phi_sequence(j, kPhi2) * 11 + 0.3);
      ++in.categories_current[static_cast<size_t>(std::pow(phi_sequence(j, kPhi2), 1.25) * 5)];
      in.ties_current.push_back(std::floor(std::pow(phi_sequence(j, kPhi2), 1.8) * 44));
    }
    for (int i = 1; i <= 120; ++i) in.x.insert(in.x.end(), {phi_sequence(i, kPhi1), phi_sequence(i, kPhi2)});
    for (int j = 1; j <= 80; ++j) in.y.insert(in.y.end(), {phi_sequence(j, kPhi3) * 1.3, phi_sequence(j, kPhi1)});
    return in;
  }();
  return inputs;
}

/// A statistic without its p-value.
DetectorOptions only(const std::string& kind, const std::string& profile = "retort") {
  return {.kind = kind, .profile = profile, .limit = {}, .gamma = {}, .p_value = false};
}

Detection on_values(const DetectorOptions& options, bool ties = false) {
  const Inputs& in = inputs();
  return compare(values_of(ties ? in.ties_reference : in.reference), values_of(ties ? in.ties_current : in.current),
                 options);
}

TEST(Detectors, AgreeWithScipy) {
  const Json& scipy = golden()["scipy"];
  for (bool ties : {false, true}) {
    const std::string prefix = ties ? "ties_" : "";
    const Detection ks = on_values({.kind = "ks", .limit = {}, .gamma = {}}, ties);
    EXPECT_NEAR(ks.statistic, scipy[prefix + "ks_d"].get<double>(), 1e-12);
    EXPECT_NEAR(ks.p_value, scipy[prefix + "ks_p"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("wasserstein"), ties).statistic, scipy[prefix + "wasserstein"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("energy"), ties).statistic, scipy[prefix + "energy"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("psi", "deciles"), ties).statistic, scipy[prefix + "psi_deciles"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("jensen_shannon", "nannyml"), ties).statistic,
                scipy[prefix + "js_nannyml"].get<double>(), 1e-9);
  }
  const Detection chi = compare(inputs().categories_reference, inputs().categories_current,
                                {.kind = "chi_square", .limit = {}, .gamma = {}});
  EXPECT_NEAR(chi.statistic, scipy["chi2"].get<double>(), 1e-9);
  EXPECT_NEAR(chi.p_value, scipy["chi2_p"].get<double>(), 1e-9);
  DetectorOptions mmd = only("mmd");
  mmd.gamma = scipy["mmd2_gamma"].get<double>();
  EXPECT_NEAR(compare(Vectors{inputs().x, 2}, Vectors{inputs().y, 2}, mmd).statistic, scipy["mmd2"].get<double>(),
              1e-9);
}

TEST(Detectors, OwnBinsAgreeWithNumpys) {
  const Json& scipy = golden()["scipy"];
  for (bool ties : {false, true}) {
    const std::string prefix = ties ? "ties_" : "";
    const Detection psi = on_values(only("psi"), ties);
    EXPECT_NEAR(psi.statistic, scipy[prefix + "psi"].get<double>(), 1e-9);
    EXPECT_NEAR(psi.details.at("threshold_0.05"), scipy[prefix + "psi_threshold"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("jensen_shannon"), ties).statistic, scipy[prefix + "js"].get<double>(), 1e-9);
  }
}

TEST(Detectors, AgreeWithEvidently) {
  const Json& evidently = golden()["evidently"];
  for (bool ties : {false, true}) {
    const std::string prefix = ties ? "ties_" : "";
    EXPECT_NEAR(on_values(only("psi", "evidently"), ties).statistic, evidently[prefix + "psi"].get<double>(), 1e-9);
    EXPECT_NEAR(on_values(only("jensen_shannon", "evidently"), ties).statistic, evidently[prefix + "js"].get<double>(),
                1e-9);
    EXPECT_NEAR(on_values(only("wasserstein", "evidently"), ties).effect,
                evidently[prefix + "wasserstein"].get<double>(), 1e-9);
  }
  const auto categories = [](const char* kind) {
    return compare(inputs().categories_reference, inputs().categories_current, only(kind, "evidently")).statistic;
  };
  EXPECT_NEAR(categories("psi"), evidently["categories_psi"].get<double>(), 1e-9);
  EXPECT_NEAR(categories("jensen_shannon"), evidently["categories_js"].get<double>(), 1e-9);
  EXPECT_NEAR(compare(Vectors{inputs().x, 2}, Vectors{inputs().y, 2}, only("mmd", "evidently")).statistic,
              evidently["mmd2"].get<double>(), 1e-9);
}

TEST(Detectors, AgreeWithFrouros) {
  const Json& frouros = golden()["frouros"];
  EXPECT_NEAR(on_values(only("psi", "frouros")).statistic, frouros["psi"].get<double>(), 1e-6);
  EXPECT_NEAR(on_values(only("psi", "frouros"), true).statistic, frouros["ties_psi"].get<double>(), 1e-9);
  EXPECT_NEAR(on_values(only("jensen_shannon", "frouros")).statistic, frouros["js"].get<double>(), 1e-9);
  EXPECT_NEAR(on_values(only("jensen_shannon", "frouros"), true).statistic, frouros["ties_js"].get<double>(), 1e-9);
  EXPECT_NEAR(on_values(only("wasserstein")).statistic, frouros["wasserstein"].get<double>(), 1e-9);
  EXPECT_NEAR(on_values(only("energy")).statistic, frouros["energy"].get<double>(), 1e-9);
  EXPECT_NEAR(compare(Vectors{inputs().x, 2}, Vectors{inputs().y, 2}, only("mmd", "frouros")).statistic,
              frouros["mmd2"].get<double>(), 1e-9);
}

TEST(Detectors, KolmogorovSmirnovHasScipysPValueAtEverySize) {
  for (const Json& size : golden()["scipy"]["ks_sizes"]) {
    std::vector<double> reference, current;
    for (int i = 1; i <= size["n"].get<int>(); ++i) reference.push_back(phi_sequence(i, kPhi1));
    for (int j = 1; j <= size["m"].get<int>(); ++j)
      current.push_back(std::pow(phi_sequence(j, kPhi2), size["power"].get<double>()));
    const Detection ks = compare(values_of(reference), values_of(current), {.kind = "ks", .limit = {}, .gamma = {}});
    const double p = size["p"].get<double>();
    EXPECT_NEAR(ks.statistic, size["d"].get<double>(), 1e-12) << size.dump();
    EXPECT_NEAR(ks.p_value, p, 1e-7 + 1e-6 * p) << size.dump();
    EXPECT_NEAR(std::log(ks.p_value), std::log(p), 0.05) << size.dump();
  }
}

TEST(Detectors, EffectLimitsAreAFifthOfADeviation) {
  // A large normal sample against one shifted by 0.2 deviations, taken as quantiles so that chance adds nothing.
  const int rows = 20001;
  std::vector<double> reference, current;
  std::vector<int64_t> octiles_reference(8), octiles_current(8);
  for (int i = 0; i < rows; ++i) {
    reference.push_back(normal_quantile((i + 0.5) / rows));
    current.push_back(reference.back() + 0.2);
    const auto octile = [&](double x) { return static_cast<size_t>(std::min(7.0, normal_cdf(x) * 8)); };
    ++octiles_reference[octile(reference.back())];
    ++octiles_current[octile(current.back())];
  }
  for (const char* kind : {"psi", "ks", "jensen_shannon", "wasserstein", "energy"}) {
    const Detection detection = compare(values_of(reference), values_of(current), only(kind));
    EXPECT_NEAR(detection.effect / detection.limit, 1, 0.08) << kind;
  }
  const Detection chi = compare(octiles_reference, octiles_current, only("chi_square"));
  EXPECT_NEAR(chi.effect / chi.limit, 1, 0.08);
  Rng rng(3);
  std::vector<double> x, y;
  const size_t dimensions = 64, few = 1500;
  for (size_t i = 0; i < few * dimensions; ++i) {
    x.push_back(normal(rng));
    y.push_back(normal(rng) + 0.2);
  }
  const Detection mmd = compare(Vectors{x, dimensions}, Vectors{y, dimensions}, only("mmd"));
  EXPECT_NEAR(mmd.effect / mmd.limit, 1, 0.08);
  for (double& value : x) value = normal(rng);
  for (size_t i = 0; i < y.size(); ++i) y[i] = normal(rng) + (i % 4 == 0 ? 0.2 : 0);
  x.resize(4 * 24000);
  y.resize(4 * 24000);  // one coordinate of four is shifted
  const Detection auc = compare(Vectors{x, 4}, Vectors{y, 4}, only("domain_classifier"));
  EXPECT_NEAR((auc.effect - 0.5) / (auc.limit - 0.5), 1, 0.15);
  EXPECT_LT(auc.details.at("auc_low"), 0.556);
  EXPECT_GT(auc.details.at("auc_high"), 0.556);
}

/// Whether p <= 0.1 is as frequent among `trials` as it must be where nothing differs: within the counts that an exact
/// binomial leaves with probability 1e-4. Where p-values are few, as of `coarse` detectors, it may be rarer.
template <typename PValue>
void expect_a_tenth(int trials, const std::string& what, const PValue& p_value, bool coarse = false) {
  int rejected = 0;
  for (int t = 0; t < trials; ++t) rejected += p_value(static_cast<uint64_t>(t)) <= 0.1;
  const boost::math::binomial binomial(trials, 0.1);
  EXPECT_LE(rejected, quantile(complement(binomial, 5e-5))) << what;
  EXPECT_GE(rejected, coarse ? 0 : quantile(binomial, 5e-5)) << what;
}

TEST(Detectors, PValuesOfValuesHoldWhereNothingDiffers) {
  const int trials = 400;
  for (const auto& [n, m] : {std::pair{8, 40}, {40, 100}, {300, 60}}) {
    for (const char* kind :
         {"psi", "ks", "jensen_shannon", "wasserstein", "energy", "psi.evidently", "jensen_shannon.nannyml"}) {
      DetectorOptions options{.kind = kind, .limit = {}, .permutations = 199, .gamma = {}};
      if (const size_t dot = options.kind.find('.'); dot != std::string::npos) {
        options.profile = options.kind.substr(dot + 1);
        options.kind.resize(dot);
      }
      const auto p_value = [&](uint64_t trial) {
        Rng rng(11, trial + 1);
        options.seed = static_cast<int64_t>(trial);
        return compare(values_of(normals(rng, n)), values_of(normals(rng, m)), options).p_value;
      };
      // KS has few values; Evidently takes up to twenty numbers for categories, and none of these comes twice
      const bool coarse = options.kind == "ks" || (options.profile == "evidently" && n <= 20);
      expect_a_tenth(trials, fmt::format("{} {} {}", kind, n, m), p_value, coarse);
    }
  }
}

TEST(Detectors, PValuesOfCountsHoldWhereNothingDiffers) {
  const int trials = 400;
  const double shares[] = {0.5, 0.3, 0.15, 0.04, 0.01};  // the last expects fewer than five
  for (const char* kind : {"chi_square", "psi", "jensen_shannon"}) {
    expect_a_tenth(trials, kind, [&](uint64_t trial) {
      Rng rng(12, trial + 1);
      std::vector<int64_t> counts[2] = {std::vector<int64_t>(5), std::vector<int64_t>(5)};
      for (int side : {0, 1}) {
        for (int i = 0; i < (side == 0 ? 200 : 90); ++i) {
          double u = rng.uniform();
          size_t category = 0;
          while (category < 4 && u >= shares[category]) u -= shares[category++];
          ++counts[side][category];
        }
      }
      return compare(counts[0], counts[1], {.kind = kind, .limit = {}, .permutations = 199, .gamma = {}}).p_value;
    });
  }
}

TEST(Detectors, PValuesOfVectorsHoldWhereNothingDiffers) {
  const int trials = 200;
  for (const char* kind : {"mmd", "domain_classifier"}) {
    expect_a_tenth(trials, kind, [&](uint64_t trial) {
      Rng rng(13, trial + 1);
      const std::vector<double> x = normals(rng, 60 * 3), y = normals(rng, 30 * 3);
      DetectorOptions options{
          .kind = kind, .limit = {}, .permutations = 99, .seed = static_cast<int64_t>(trial), .gamma = {}};
      return compare(Vectors{x, 3}, Vectors{y, 3}, options).p_value;
    });
  }
}

TEST(Detectors, DomainClassifierAgreesWithScikitLearn) {
  // Which rows share a fold is chance, so means over many choices are compared.
  DetectorOptions options = only("domain_classifier");
  double mean = 0;
  const int repeats = 200;
  for (options.seed = 1; options.seed <= repeats; ++options.seed)
    mean += compare(Vectors{inputs().x, 2}, Vectors{inputs().y, 2}, options).statistic / repeats;
  EXPECT_NEAR(mean, golden()["scipy"]["domain_classifier"].get<double>(), 0.003);
}

TEST(Detectors, DomainClassifiersIntervalHoldsTheArea) {
  // One coordinate: whatever the fit, the true area of two normals that lie d apart is Phi(d / sqrt 2).
  const double apart = 0.8, area = normal_cdf(apart / std::numbers::sqrt2);
  const int trials = 500;
  int held = 0;
  for (uint64_t trial = 1; trial <= trials; ++trial) {
    Rng rng(14, trial);
    const std::vector<double> x = normals(rng, 150);
    std::vector<double> y = normals(rng, 100);
    for (double& value : y) value += apart;
    const Detection auc = compare(Vectors{x, 1}, Vectors{y, 1}, only("domain_classifier"));
    held += auc.details.at("auc_low") <= area && area <= auc.details.at("auc_high");
  }
  const boost::math::binomial binomial(trials, 0.95);
  EXPECT_GE(held, quantile(binomial, 5e-5));
  EXPECT_LE(held, quantile(complement(binomial, 5e-5)));
}

TEST(Detectors, SmallestPValueIsOneOfThePermutationsAndOne) {
  Rng rng(1);
  const Values reference = values_of(normals(rng, 100));
  std::vector<double> far = normals(rng, 100);
  for (double& value : far) value += 10;
  for (const char* kind : {"psi", "jensen_shannon", "wasserstein", "energy"}) {
    const DetectorOptions options{.kind = kind, .limit = {}, .permutations = 99, .gamma = {}};
    EXPECT_DOUBLE_EQ(compare(reference, values_of(far), options).p_value, 0.01) << kind;
  }
}

TEST(Detectors, PsiThresholdIsItsLaw) {
  Rng rng(2);
  const Detection psi =
      compare(values_of(normals(rng, 8000)), values_of(normals(rng, 6000)), {.kind = "psi", .limit = {}, .gamma = {}});
  EXPECT_NEAR(psi.details.at("threshold_0.05"), (1.0 / 8000 + 1.0 / 6000) * 16.918977604620448, 1e-12);
  EXPECT_NEAR(psi.p_value, chi_squared_tail(psi.statistic / (1.0 / 8000 + 1.0 / 6000), 9), 1e-12);
}

TEST(Detectors, LinearTimeMmdIsWithinItsBound) {
  const Vectors x{inputs().x, 2}, y{inputs().y, 2};
  DetectorOptions options = only("mmd");
  options.gamma = 3.0;
  const double exact = compare(x, y, options).statistic;
  const size_t frequencies = 4096;
  const double bound = mmd2_error_bound(120, 80, frequencies, 1e-6);
  EXPECT_LT(bound, 0.2);
  double squares = 0;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const RandomFeatures features(2, 3.0, frequencies, seed);
    FeatureMean a(features), b(features);
    for (size_t i = 0; i < x.rows(); ++i) a.add(features, x.row(i));
    for (size_t i = 0; i < y.rows(); ++i) b.add(features, y.row(i));
    const Detection linear = compare(a, b, options);
    EXPECT_NEAR(linear.statistic, exact, bound);
    EXPECT_TRUE(std::isnan(linear.p_value));
    squares += std::pow(linear.statistic - exact, 2) / 50;
  }
  EXPECT_LT(std::sqrt(squares), 0.1 * exact);  // far inside the bound, and unbiased
}

TEST(Detectors, MmdOfManyRowsIsThatOfTheKernel) {
  Rng rng(4);
  const size_t dimensions = 8;
  std::vector<double> x = normals(rng, 2100 * dimensions), y = normals(rng, 2100 * dimensions);
  for (double& value : y) value += 0.15;
  DetectorOptions options{.kind = "mmd", .limit = {}, .permutations = 99, .gamma = 0.0625};
  const Detection linear = compare(Vectors{x, dimensions}, Vectors{y, dimensions}, options);
  EXPECT_EQ(linear.details.count("frequencies"), 1U);
  EXPECT_DOUBLE_EQ(linear.p_value, 0.01);
  const std::span<const double> fewer_x(x.data(), 1900 * dimensions), fewer_y(y.data(), 1900 * dimensions);
  const Detection exact = compare(Vectors{fewer_x, dimensions}, Vectors{fewer_y, dimensions}, options);
  EXPECT_EQ(exact.details.count("frequencies"), 0U);
  EXPECT_NEAR(linear.statistic, exact.statistic, 0.25 * exact.statistic);
}

TEST(FeatureMeans, MergeIsTheMeanOfBoth) {
  const RandomFeatures features(2, 1.5, 32, 9);
  FeatureMean a(features), b(features), both(features);
  for (size_t i = 0; i < 10; ++i) {
    (i < 4 ? a : b).add(features, std::span(inputs().x).subspan(2 * i, 2));
    both.add(features, std::span(inputs().x).subspan(2 * i, 2));
  }
  a.merge(b);
  EXPECT_EQ(a.rows, both.rows);
  for (size_t i = 0; i < a.sum.size(); ++i) EXPECT_NEAR(a.sum[i], both.sum[i], 1e-12);
  const FeatureMean again = FeatureMean::from_json(both.to_json(), "profile");
  EXPECT_EQ(again.sum, both.sum);
  EXPECT_EQ(again.gamma, both.gamma);
  Json damaged = both.to_json();
  damaged["sum"][3] = 100.0;
  EXPECT_THROW(FeatureMean::from_json(damaged, "profile"), Error);
  FeatureMean other{RandomFeatures(2, 1.5, 32, 10)};
  EXPECT_THROW(other.merge(b), Error);
  EXPECT_THROW(RandomFeatures(2, 0, 32, 1), Error);
  EXPECT_THROW(median_gamma(std::span(inputs().x).first(2), 2), Error);
  EXPECT_EQ(median_gamma(std::vector<double>(20, 3.0), 2), 1);
}

}  // namespace
}  // namespace retort
