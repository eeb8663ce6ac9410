#include "monitor/profile.h"

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "monitor/signal.h"

namespace retort {
namespace {

Json signal_json(const SignalProfile& signal) {
  Json json{{"rows", signal.rows}};
  if (signal.numbers.count() > 0) json["numbers"] = signal.numbers.to_json();
  if (!signal.counts.empty()) json["counts"] = signal.counts;
  if (signal.features.rows > 0) json["features"] = signal.features.to_json();
  return json;
}

SignalProfile signal_from(const Json& json, const std::string& where) {
  SignalProfile signal;
  signal.rows = json_get<int64_t>(json, "rows", where);
  if (json.contains("numbers")) signal.numbers = QuantileSketch::from_json(json["numbers"], where + ": numbers");
  if (json.contains("counts")) {
    const Json& counts = json["counts"];
    if (!counts.is_array() || counts.size() != static_cast<size_t>(TokenHash::kBuckets))
      fail(Exit::bad_input, "{}: counts must be a list of {} numbers", where, TokenHash::kBuckets);
    for (const Json& count : counts) {
      if (!json_holds<int64_t>(count) || count < 0 || count > (int64_t{1} << 50))
        fail(Exit::bad_input, "{}: {} is no count", where, count.dump());
      signal.counts.push_back(count.get<int64_t>());
    }
  }
  if (json.contains("features")) signal.features = FeatureMean::from_json(json["features"], where + ": features");
  const bool whole = (signal.numbers.count() == 0 || signal.numbers.count() == signal.rows) &&
                     (signal.features.rows == 0 || signal.features.rows == signal.rows);
  if (signal.rows < 1 || !whole) fail(Exit::bad_input, "{}: {} rows, but not of every part", where, signal.rows);
  return signal;
}

bool is_yes_no(const std::string& signal) {
  const auto kind = signal_kinds().find(signal);
  return kind != signal_kinds().end() && kind->second->yes_no;
}

}  // namespace

double SignalProfile::mean(const std::string& signal) const {
  if (!is_yes_no(signal) || rows == 0) return numbers.mean();
  return static_cast<double>(numbers.above_zero()) / static_cast<double>(rows);
}

double SignalProfile::quantile(const std::string& signal, double q) const {
  const double value = numbers.quantile(q);
  return is_yes_no(signal) && value > 0 ? 1 : value;
}

Json ProfileIdentity::to_json() const {
  return {{"model", model},
          {"model_sha256", model_sha256},
          {"tokenizer", tokenizer},
          {"key", key},
          {"max_tokens", max_tokens},
          {"gamma", gamma},
          {"feature_seed", feature_seed},
          {"dimensions", dimensions}};
}

ProfileIdentity ProfileIdentity::from_json(const Json& json, const std::string& where) {
  return {json_get<std::string>(json, "model", where),     json_get<std::string>(json, "model_sha256", where),
          json_get<std::string>(json, "tokenizer", where), json_get<std::string>(json, "key", where),
          json_get<int64_t>(json, "max_tokens", where),    json_get<double>(json, "gamma", where),
          json_get<uint64_t>(json, "feature_seed", where), json_get<int64_t>(json, "dimensions", where)};
}

void ProfileIdentity::require_same(const ProfileIdentity& other, const std::string& where) const {
  if (model_sha256 != other.model_sha256)
    fail(Exit::bad_input,
         "{}: it is of another model: {} ({}…), the champion is {} ({}…); build it again with `retort "
         "drift profile`",
         where, model, model_sha256.substr(0, 12), other.model, other.model_sha256.substr(0, 12));
  if (key != other.key)
    fail(Exit::bad_input, "{}: it was made with another project key (id {}, this one has {})", where, key, other.key);
  if (max_tokens != other.max_tokens)
    fail(Exit::bad_input, "{}: it was made with max_tokens: {}, now it is {}", where, max_tokens, other.max_tokens);
  if (tokenizer != other.tokenizer || gamma != other.gamma || feature_seed != other.feature_seed ||
      dimensions != other.dimensions)
    fail(Exit::bad_input, "{}: it was made with another version of the tokenizer or the features; build it again",
         where);
}

void Profile::add(const RowMeasure& measure) {
  ++rows;
  for (const auto& [name, value] : measure.numbers) {
    SignalProfile& signal = signals[name];
    signal.numbers.add(value);
    ++signal.rows;
  }
  for (const auto& [name, entries] : measure.counts) {
    SignalProfile& signal = signals[name];
    signal.counts.resize(TokenHash::kBuckets);
    for (const auto& [bucket, count] : entries) signal.counts[static_cast<size_t>(bucket)] += count;
    ++signal.rows;
  }
  for (const auto& [name, values] : measure.features) {
    SignalProfile& signal = signals[name];
    FeatureMean& mean = signal.features;
    mean.seed = identity.feature_seed;
    mean.gamma = identity.gamma;
    mean.dimensions = static_cast<size_t>(identity.dimensions);
    mean.sum.resize(values.size());
    for (size_t f = 0; f < values.size(); ++f) mean.sum[f] += values[f] * kFeatureUnit;
    ++mean.rows;
    ++signal.rows;
  }
}

void Profile::merge(const Profile& other) {
  other.identity.require_same(identity, "the other profile");
  if (canaries.has_value() != other.canaries.has_value() || (canaries && canaries->texts != other.canaries->texts))
    fail(Exit::bad_input, "the profiles were made with different canaries");
  rows += other.rows;
  nulls.clear();
  block = 0;
  for (const auto& [name, theirs] : other.signals) {
    SignalProfile& ours = signals[name];
    if (ours.rows == 0) {
      ours = theirs;
      continue;
    }
    ours.rows += theirs.rows;
    ours.numbers.merge(theirs.numbers);
    for (size_t i = 0; i < theirs.counts.size(); ++i) ours.counts[i] += theirs.counts[i];
    if (theirs.features.rows > 0) ours.features.merge(theirs.features);
  }
}

Json Profile::to_json() const {
  Json json{{"schema", 1}, {"identity", identity.to_json()}, {"rows", rows}, {"signals", Json::object()}};
  for (const auto& [name, signal] : signals) json["signals"][name] = signal_json(signal);
  if (canaries) json["canaries"] = canaries->to_json();
  if (!nulls.empty()) {
    json["block"] = block;
    for (const auto& [name, tables] : nulls) {
      for (const NullTable& table : tables) json["nulls"][name].push_back(table.to_json());
    }
  }
  return json;
}

Profile Profile::from_json(const Json& json, const std::string& where) {
  if (const auto schema = json_get<int64_t>(json, "schema", where); schema != 1)
    fail(Exit::bad_input, "{}: a profile of version {}, this program reads version 1", where, schema);
  Profile profile;
  profile.identity = ProfileIdentity::from_json(json_get<Json>(json, "identity", where), where + ": identity");
  profile.rows = json_get<int64_t>(json, "rows", where);
  const Json signals = json_get<Json>(json, "signals", where);
  if (!signals.is_object()) fail(Exit::bad_input, "{}: signals is {}, an object is needed", where, signals.type_name());
  for (const auto& [name, signal] : signals.items()) {
    if (!signal_kinds().contains(name)) fail(Exit::bad_input, "{}: there is no signal {}", where, name);
    profile.signals[name] = signal_from(signal, fmt::format("{}: signals.{}", where, name));
  }
  if (json.contains("canaries")) profile.canaries = Canaries::from_json(json["canaries"], where + ": canaries");
  if (json.contains("nulls")) {
    profile.block = json_get<int64_t>(json, "block", where);
    const Json& nulls = json["nulls"];
    if (!nulls.is_object()) fail(Exit::bad_input, "{}: nulls is {}, an object is needed", where, nulls.type_name());
    for (const auto& [name, tables] : nulls.items()) {
      if (!tables.is_array() || tables.empty()) fail(Exit::bad_input, "{}: nulls.{} has no table", where, name);
      for (const Json& table : tables)
        profile.nulls[name].push_back(NullTable::from_json(table, fmt::format("{}: nulls.{}", where, name)));
    }
  }
  return profile;
}

std::string write_profile(const std::filesystem::path& path, const Profile& profile) {
  const Json body = profile.to_json();
  const std::string hash = sha256_hex(body.dump());
  write_atomic(path, Json{{"sha256", hash}, {"profile", body}}.dump() + "\n");
  return hash;
}

std::pair<Profile, std::string> read_profile(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Json json = parse_json(read_text(path, uint64_t{1} << 28), where);
  const auto hash = json_get<std::string>(json, "sha256", where);
  const Json body = json_get<Json>(json, "profile", where);
  if (sha256_hex(body.dump()) != hash)
    fail(Exit::bad_input, "{}: the profile is not what its SHA-256 says: it was changed or damaged; build it again",
         where);
  return {Profile::from_json(body, where), hash};
}

}  // namespace retort
