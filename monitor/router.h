// The router: which prompts the small model may answer, with a bound on what that loses, and a file that says so to a
// gateway. docs/router.md describes the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "monitor/logistic.h"

namespace retort {

/// A held-out prompt with what both models made of it.
struct RouteRow {
  std::string place;   ///< file:line
  std::string prompt;  ///< equal prompts are never split between fitting and calibrating
  std::map<std::string, double> features;
  double small = 0, large = 0;  ///< outcomes, 0 (wrong) to 1 (right)
  std::optional<double> small_cost, large_cost;
};

/// Whose rows they are.
struct RouteSource {
  std::string small_sha256, large_sha256, profile_sha256;
};

struct RouteData {
  RouteSource source;
  std::vector<RouteRow> rows;
};

/// JSON Lines: prompt, features {name: number}, small, large, optionally small_cost, large_cost, small_sha256,
/// large_sha256, profile_sha256, which are the same in every line that has them. Error(bad_input) with file and line.
RouteData read_route_rows(const std::filesystem::path& path);

struct RouteOptions {
  double epsilon = 0.05;  ///< largest share of all prompts that the small model answers worse than the large one
  double delta = 0.1;     ///< probability that the bound does not hold
  double ridge = 1;
  uint64_t seed = 1;  ///< of the split
};

struct RouterFeature {
  std::string name;
  double mean = 0, scale = 1, coefficient = 0;
};

struct Router {
  RouteSource source;
  std::vector<RouterFeature> features;
  double intercept = 0;
  Isotonic isotonic;                ///< from the score to the probability that the small model suffices
  std::optional<double> threshold;  ///< the small model answers at a score of at least this; nothing: never
  double epsilon = 0, delta = 0;
  /// Of the calibration at the threshold: rows, those sent to the small model, those where it was worse, and the upper
  /// bound of that share.
  int64_t rows = 0, sent = 0, losses = 0;
  double bound = 0;
  int64_t fit_rows = 0;
  bool revoked = false;
  std::string reason;  ///< why it was revoked

  /// In [0, 1]. Error(bad_input) when the row lacks a feature.
  double score(const RouteRow& row) const;
  Json to_json() const;
  static Router from_json(const Json& json, const std::string& where);
};

/// A loss: the small model answers, and the large one would have been better.
///
/// Two fifths of the prompts fit the logistic regression of "the small model is no worse", a fifth its isotonic
/// correction, two fifths choose the threshold: the candidates are the other rows' scores from the largest down, and
/// the last before the first that fails "share of losses <= epsilon" by the exact binomial test at level delta is
/// taken (fixed-sequence testing: Angelopoulos, Bates, Candes, Jordan, Lei: Learn then test, 2021). So the share of
/// losses of all prompts like these is at most epsilon with probability 1 - delta over the draw of the rows.
/// Error(bad_input) for fewer than 20 rows or rows without features; Error(usage) for options out of range.
Router calibrate_router(const RouteData& data, const RouteOptions& options);

/// A rule's quality against the share of prompts that the large model gets: points (share, mean outcome), first (0,
/// small alone), last (1, large alone).
struct RouteCurve {
  std::vector<std::pair<double, double>> points;
  std::optional<double> apgr;  ///< area under PGR; nothing where the large model is not better over all
  /// Least share with PGR of at least 0.2, 0.5, 0.8, at the first crossing.
  std::map<std::string, std::optional<double>> cpt;
};
/// Rows by falling need of the large model; equal needs in proportion.
RouteCurve route_curve(std::span<const RouteRow> rows, std::span<const double> need);

/// What a router does on rows that it was not made of: report.json's "router".
Json evaluate_router(const Router& router, const RouteData& data);

/// Error(bad_input) when revoked, or made for a model of another hash or another profile; an empty hash is not
/// compared.
void require_valid(const Router& router, const RouteSource& now, const std::string& where);

void write_router(const std::filesystem::path& path, const Router& router);
Router read_router(const std::filesystem::path& path);
/// Sets revoked and why, atomically; nothing when it is revoked already.
void revoke_router(const std::filesystem::path& path, const std::string& reason);

}  // namespace retort
