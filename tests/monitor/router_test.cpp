// The router: its fits against scikit-learn (tests/golden/make_router.py), its guarantee by simulation, its file.
#include "monitor/router.h"

#include <gtest/gtest.h>

#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/rng.h"
#include "tests/core/support.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(RETORT_GOLDEN "/router.json");
  return json;
}

std::vector<double> flat_rows() {
  std::vector<double> rows;
  for (const Json& row : golden()["rows"])
    for (const Json& x : row) rows.push_back(x.get<double>());
  return rows;
}

TEST(Router, LogisticAsScikitLearn) {
  const std::vector<double> rows = flat_rows(), labels = golden()["labels"].get<std::vector<double>>();
  for (const Json& expected : golden()["logistic"]) {
    const Logistic model = fit_logistic(rows, labels, expected["ridge"].get<double>());
    EXPECT_NEAR(model.intercept, expected["intercept"].get<double>(), 1e-6);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(model.mean[i], golden()["mean"][i].get<double>(), 1e-10);
      EXPECT_NEAR(model.scale[i], golden()["scale"][i].get<double>(), 1e-10);
      EXPECT_NEAR(model.coefficients[i], expected["coefficients"][i].get<double>(), 1e-6);
    }
    for (size_t i = 0; i < 10; ++i)
      EXPECT_NEAR(model(std::span(rows).subspan(3 * i, 3)), expected["probabilities"][i].get<double>(), 1e-7);
  }
}

TEST(Router, LogisticWhereFeaturesOrLabelsSayNothing) {
  const Logistic constant = fit_logistic(std::vector<double>{3, 3, 3, 3}, std::vector<double>{0, 1, 1, 1});
  EXPECT_NEAR(constant(std::vector<double>{3}), 0.75, 1e-6);
  const Logistic all = fit_logistic(std::vector<double>{1, 2, 3, 4}, std::vector<double>{1, 1, 1, 1});
  EXPECT_GT(all(std::vector<double>{2}), 0.99);
  EXPECT_TRUE(std::isfinite(all.intercept));
  EXPECT_THROW(fit_logistic(std::vector<double>{1, NAN}, std::vector<double>{1, 0}), Error);
}

TEST(Router, IsotonicAsScikitLearn) {
  const Json& expected = golden()["isotonic"];
  const Isotonic fitted =
      fit_isotonic(expected["x"].get<std::vector<double>>(), expected["y"].get<std::vector<double>>());
  for (size_t i = 0; i < expected["asked"].size(); ++i)
    EXPECT_NEAR(fitted(expected["asked"][i].get<double>()), expected["answered"][i].get<double>(), 1e-10)
        << expected["asked"][i];
}

/// Prompts whose one feature says how likely the small model is right; the large one is right in nine of ten.
RouteData drawn(size_t rows, uint64_t seed) {
  Rng rng(seed, 1);
  RouteData data{.source = {"aa", "bb", "cc"}, .rows = {}};
  for (size_t i = 0; i < rows; ++i) {
    const double x = rng.uniform();
    data.rows.push_back({.place = "row",
                         .prompt = std::to_string(rng.next()),
                         .features = {{"x", 4 * x - 2}, {"noise", rng.uniform()}},
                         .small = rng.uniform() < 0.2 + 0.75 * x ? 1.0 : 0.0,
                         .large = rng.uniform() < 0.9 ? 1.0 : 0.0,
                         .small_cost = 1,
                         .large_cost = 10});
  }
  return data;
}

TEST(Router, LossIsAtMostEpsilonWithConfidence) {
  const RouteOptions options{.epsilon = 0.1, .delta = 0.1};
  const int draws = 1000;
  const RouteData truth = drawn(20'000, 99);  // all prompts like these
  int broken = 0, used = 0;
  for (int draw = 1; draw <= draws; ++draw) {
    const Router router = calibrate_router(drawn(300, static_cast<uint64_t>(draw) + 1000), options);
    if (!router.threshold) continue;
    ++used;
    int64_t losses = 0;
    for (const RouteRow& row : truth.rows) losses += row.small < row.large && router.score(row) >= *router.threshold;
    broken += static_cast<double>(losses) / static_cast<double>(truth.rows.size()) > options.epsilon;
  }
  const boost::math::binomial band(draws, options.delta);
  EXPECT_LE(broken, quantile(complement(band, 0.001)));
  EXPECT_GT(broken, 0);  // a guarantee that is never used up is too dear
  EXPECT_GT(used, draws / 2);
}

TEST(Router, FittingAndChoosingSeeDifferentPrompts) {
  // Outcomes of the choosing rows alone change the threshold; the fit stays.
  RouteData data = drawn(500, 5);
  const Router before = calibrate_router(data, {.epsilon = 0.2});
  ASSERT_TRUE(before.threshold);
  EXPECT_EQ(before.fit_rows + before.rows, 500);
  EXPECT_GT(before.fit_rows, 200);
  EXPECT_GT(before.rows, 130);
  RouteData twice = data;
  twice.rows.insert(twice.rows.end(), data.rows.begin(), data.rows.end());
  const Router doubled = calibrate_router(twice, {.epsilon = 0.2});
  EXPECT_EQ(doubled.fit_rows, 2 * before.fit_rows);  // a prompt's copies stay together
}

TEST(Router, SendsNothingWhereNothingCanBeShown) {
  RouteData data = drawn(100, 3);
  for (RouteRow& row : data.rows) row.small = 0, row.large = 1;
  EXPECT_FALSE(calibrate_router(data, {.epsilon = 0.05}).threshold);
  for (RouteRow& row : data.rows) row.small = 1;
  const Router all = calibrate_router(data, {.epsilon = 0.1});
  ASSERT_TRUE(all.threshold);
  EXPECT_NEAR(all.bound, 1 - std::pow(0.1, 1.0 / static_cast<double>(all.rows)), 1e-9);  // Clopper and Pearson of 0
  for (RouteRow& row : data.rows) row.small = row.large = 0;  // both wrong: nothing is gained by the large model
  EXPECT_GT(calibrate_router(data, {.epsilon = 0.1}).score(data.rows[0]), 0.9);
}

RouteRow simple(double x, double small, double large) {
  return {.place = "row",
          .prompt = "",
          .features = {{"x", x}},
          .small = small,
          .large = large,
          .small_cost = {},
          .large_cost = {}};
}

TEST(Router, CurveAndItsFiguresByHand) {
  // By falling need: rescued, spoilt, rescued, both right.
  const std::vector<RouteRow> rows{simple(0, 0, 1), simple(0, 1, 0), simple(0, 0, 1), simple(0, 1, 1)};
  const std::vector<double> need{4, 3, 2, 1};
  const RouteCurve curve = route_curve(rows, need);
  const std::vector<std::pair<double, double>> points{{0, 0.5}, {0.25, 0.75}, {0.5, 0.5}, {0.75, 0.75}, {1, 0.75}};
  EXPECT_EQ(curve.points, points);
  // PGR 0, 1, 0, 1, 1.
  EXPECT_NEAR(*curve.apgr, 0.25 * (0.5 + 0.5 + 0.5 + 1), 1e-12);
  EXPECT_NEAR(*curve.cpt.at("50"), 0.125, 1e-12);  // the first crossing, though the curve falls again
  EXPECT_NEAR(*curve.cpt.at("80"), 0.2, 1e-12);
  const RouteCurve chance = route_curve(rows, std::vector<double>(4, 0));
  EXPECT_NEAR(*chance.apgr, 0.5, 1e-12);
  EXPECT_NEAR(*chance.cpt.at("80"), 0.8, 1e-12);
  const std::vector<RouteRow> alike{simple(0, 1, 1), simple(0, 0, 0)};
  EXPECT_FALSE(route_curve(alike, std::vector<double>{1, 0}).apgr);
}

TEST(Router, EvaluationOfOtherRows) {
  const Router router = calibrate_router(drawn(2000, 1), {.epsilon = 0.1});
  const RouteData other = drawn(3000, 2);
  const Json found = evaluate_router(router, other);
  EXPECT_LE(found["chosen"]["loss"].get<double>(), 0.1);
  EXPECT_GT(found["chosen"]["to_small"].get<double>(), 0.2);
  EXPECT_GT(found["curves"]["router"]["apgr"].get<double>(), 0.6);
  EXPECT_NEAR(found["curves"]["random"]["apgr"].get<double>(), 0.5, 1e-12);
  EXPECT_GT(found["curves"]["oracle"]["apgr"].get<double>(), found["curves"]["router"]["apgr"].get<double>());
  EXPECT_LT(found["calibration"]["ece"].get<double>(), 0.08);
  EXPECT_NEAR(found["chosen"]["cost"].get<double>(), 1 + 10 * (1 - found["chosen"]["to_small"].get<double>()), 1e-9);
}

TEST(Router, FileReadsBackAndCanBeRevoked) {
  const TemporaryFolder folder;
  const auto path = folder / "router.json";
  const Router router = calibrate_router(drawn(400, 1), {.epsilon = 0.15});
  write_router(path, router);
  const Router read = read_router(path);
  EXPECT_EQ(read.to_json(), router.to_json());
  const RouteData rows = drawn(5, 7);
  EXPECT_EQ(read.score(rows.rows[0]), router.score(rows.rows[0]));
  require_valid(read, {"aa", "bb", "cc"}, "r");
  require_valid(read, {}, "r");
  EXPECT_THROW(require_valid(read, {"ab", "bb", "cc"}, "r"), Error);
  EXPECT_THROW(require_valid(read, {"aa", "bb", "cd"}, "r"), Error);
  revoke_router(path, "drift");
  revoke_router(path, "again");
  const Router revoked = read_router(path);
  EXPECT_TRUE(revoked.revoked);
  EXPECT_EQ(revoked.reason, "drift");
  EXPECT_THROW(require_valid(revoked, {"aa", "bb", "cc"}, "r"), Error);
}

TEST(Router, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  const Json good = calibrate_router(drawn(400, 1), {.epsilon = 0.15}).to_json();
  auto refused = [&](auto damage) {
    Json json = good;
    damage(json);
    EXPECT_THROW(Router::from_json(json, "r"), Error) << json.dump();
  };
  refused([](Json& json) { json["format"] = "other"; });
  refused([](Json& json) { json["features"][0]["scale"] = 0; });
  refused([](Json& json) { json["features"][0].erase("mean"); });
  refused([](Json& json) { json["isotonic"]["y"] = {1}; });
  refused([](Json& json) { json["isotonic"]["x"] = {2, 1}, json["isotonic"]["y"] = {0, 1}; });
  refused([](Json& json) { json["threshold"] = "0.5"; });
  refused([](Json& json) { json["epsilon"] = 3; });

  const std::string row = R"({"prompt": "a", "small": 1, "large": 0, "features": {"x": 1}})";
  auto lines = [&](const std::string& text) {
    write_atomic(folder / "rows.jsonl", text);
    return read_route_rows(folder / "rows.jsonl");
  };
  EXPECT_EQ(lines(row + "\n\n" + row).rows.size(), 2u);
  EXPECT_THROW(lines(""), Error);
  EXPECT_THROW(lines(R"({"prompt": "a", "small": 2, "large": 0, "features": {"x": 1}})"), Error);
  EXPECT_THROW(lines(R"({"prompt": "a", "small": 1, "large": 0, "features": {"x": "1"}})"), Error);
  EXPECT_THROW(lines(R"({"prompt": "a", "small": 1, "large": 0, "features": {}})"), Error);
  EXPECT_THROW(lines(R"({"prompt": "a", "small": 1, "large": 0, "features": {"x": 1}, "small_sha256": "1"})"
                     "\n"
                     R"({"prompt": "a", "small": 1, "large": 0, "features": {"x": 1}, "small_sha256": "2"})"),
               Error);
  RouteData lacking = drawn(100, 1);
  lacking.rows[7].features.erase("noise");
  EXPECT_THROW(evaluate_router(Router::from_json(good, "r"), lacking), Error);
}

}  // namespace
}  // namespace retort
