// The router's files: rows with outcomes, and the artifact.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "data/text_input.h"
#include "monitor/router.h"

namespace retort {
namespace {

/// Every line says the same of whose rows they are, or nothing.
void take(std::string& known, const Json& row, const std::string& key, const std::string& where) {
  const std::string value = json_get<std::string>(row, key, where, "");
  if (value.empty()) return;
  if (!known.empty() && known != value)
    fail(Exit::bad_input, "{}: {} is {}, in an earlier line {}: one router serves one pair of models", where, key,
         value, known);
  known = value;
}

double outcome(const Json& row, const std::string& key, const std::string& where) {
  const double value = json_get<double>(row, key, where);
  if (!(value >= 0 && value <= 1)) fail(Exit::bad_input, "{}: {} is {}; allowed: 0 to 1", where, key, value);
  return value;
}

std::optional<double> cost(const Json& row, const std::string& key, const std::string& where) {
  if (!row.contains(key) || row[key].is_null()) return std::nullopt;
  const double value = json_get<double>(row, key, where);
  if (!(value >= 0) || !std::isfinite(value))
    fail(Exit::bad_input, "{}: {} is {}; allowed: 0 or more", where, key, value);
  return value;
}

double finite(const Json& json, const std::string& key, const std::string& where) {
  const double value = json_get<double>(json, key, where);
  if (!std::isfinite(value)) fail(Exit::bad_input, "{}: {} is no finite number", where, key);
  return value;
}

double share(const Json& json, const std::string& key, const std::string& where) {
  const double value = json_get<double>(json, key, where);
  if (!(value >= 0 && value <= 1)) fail(Exit::bad_input, "{}: {} is {}; allowed: 0 to 1", where, key, value);
  return value;
}

}  // namespace

RouteData read_route_rows(const std::filesystem::path& path) {
  RouteData data;
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    if (trim(line).empty()) continue;
    const std::string where = lines.place();
    const Json json = parse_json(line, where);
    RouteRow row{.place = where,
                 .prompt = json_get<std::string>(json, "prompt", where),
                 .features = {},
                 .small = outcome(json, "small", where),
                 .large = outcome(json, "large", where),
                 .small_cost = cost(json, "small_cost", where),
                 .large_cost = cost(json, "large_cost", where)};
    const Json features = json_get<Json>(json, "features", where);
    if (!features.is_object() || features.empty())
      fail(Exit::bad_input, "{}: features must be an object of numbers; `retort route measure` makes them", where);
    for (const auto& [name, unused] : features.items())
      row.features[name] = finite(features, name, where + ": features");
    take(data.source.small_sha256, json, "small_sha256", where);
    take(data.source.large_sha256, json, "large_sha256", where);
    take(data.source.profile_sha256, json, "profile_sha256", where);
    data.rows.push_back(std::move(row));
  }
  if (data.rows.empty()) fail(Exit::bad_input, "{}: there are no rows in it", path.string());
  return data;
}

Json Router::to_json() const {
  Json listed = Json::array();
  for (const RouterFeature& feature : features)
    listed.push_back({{"name", feature.name},
                      {"mean", feature.mean},
                      {"scale", feature.scale},
                      {"coefficient", feature.coefficient}});
  return {
      {"format", "retort-router"},
      {"version", 1},
      {"revoked", revoked},
      {"reason", reason},
      {"small_sha256", source.small_sha256},
      {"large_sha256", source.large_sha256},
      {"profile_sha256", source.profile_sha256},
      {"features", listed},
      {"intercept", intercept},
      {"threshold", threshold ? Json(*threshold) : Json(nullptr)},
      {"isotonic", {{"x", isotonic.x}, {"y", isotonic.y}}},
      {"epsilon", epsilon},
      {"delta", delta},
      {"calibration", {{"fit_rows", fit_rows}, {"rows", rows}, {"sent", sent}, {"losses", losses}, {"bound", bound}}}};
}

Router Router::from_json(const Json& json, const std::string& where) {
  if (json_get<std::string>(json, "format", where) != "retort-router" || json_get<int64_t>(json, "version", where) != 1)
    fail(Exit::bad_input, "{}: it is no router of version 1; make it with `retort route calibrate`", where);
  Router router;
  router.revoked = json_get<bool>(json, "revoked", where);
  router.reason = json_get<std::string>(json, "reason", where, "");
  router.source = {json_get<std::string>(json, "small_sha256", where),
                   json_get<std::string>(json, "large_sha256", where),
                   json_get<std::string>(json, "profile_sha256", where)};
  for (const Json& feature : json_get<std::vector<Json>>(json, "features", where)) {
    router.features.push_back({json_get<std::string>(feature, "name", where), finite(feature, "mean", where),
                               finite(feature, "scale", where), finite(feature, "coefficient", where)});
    if (!(router.features.back().scale > 0))
      fail(Exit::bad_input, "{}: the scale of {} must be above 0", where, router.features.back().name);
  }
  router.intercept = finite(json, "intercept", where);
  if (!json_get<Json>(json, "threshold", where).is_null()) router.threshold = share(json, "threshold", where);
  const Json isotonic = json_get<Json>(json, "isotonic", where);
  router.isotonic = {json_get<std::vector<double>>(isotonic, "x", where),
                     json_get<std::vector<double>>(isotonic, "y", where)};
  const auto& [x, y] = router.isotonic;
  if (x.empty() || x.size() != y.size() || std::adjacent_find(x.begin(), x.end(), std::greater_equal<>()) != x.end() ||
      !std::is_sorted(y.begin(), y.end()))
    fail(Exit::bad_input, "{}: isotonic must be rising pairs", where);
  router.epsilon = share(json, "epsilon", where);
  router.delta = share(json, "delta", where);
  const Json calibration = json_get<Json>(json, "calibration", where);
  router.fit_rows = json_get<int64_t>(calibration, "fit_rows", where);
  router.rows = json_get<int64_t>(calibration, "rows", where);
  router.sent = json_get<int64_t>(calibration, "sent", where);
  router.losses = json_get<int64_t>(calibration, "losses", where);
  router.bound = share(calibration, "bound", where);
  return router;
}

void require_valid(const Router& router, const RouteSource& now, const std::string& where) {
  if (router.revoked) fail(Exit::bad_input, "{}: the router is revoked: {}; calibrate it again", where, router.reason);
  auto same = [&](const char* what, const std::string& made, const std::string& found) {
    if (!made.empty() && !found.empty() && made != found)
      fail(Exit::bad_input, "{}: the router was calibrated for the {} {}…, this is {}…: calibrate it again", where,
           what, made.substr(0, 12), found.substr(0, 12));
  };
  same("small model", router.source.small_sha256, now.small_sha256);
  same("large model", router.source.large_sha256, now.large_sha256);
  same("profile", router.source.profile_sha256, now.profile_sha256);
}

void write_router(const std::filesystem::path& path, const Router& router) { write_json(path, router.to_json()); }

Router read_router(const std::filesystem::path& path) { return Router::from_json(read_json(path), path.string()); }

void revoke_router(const std::filesystem::path& path, const std::string& reason) {
  const FileLock lock(path.string() + ".lock");
  Router router = read_router(path);
  if (router.revoked) return;
  router.revoked = true;
  router.reason = reason;
  write_router(path, router);
}

}  // namespace retort
