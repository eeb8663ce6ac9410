#include "registry/card.h"

#include <algorithm>
#include <array>
#include <boost/math/distributions/students_t.hpp>
#include <ctime>

#include "core/error.h"
#include "core/hash.h"
#include "registry/store.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

std::string day_and_time(int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M UTC", &parts);
  return text.data();
}

std::string dumped(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// On one line of a table: a text as it is, anything else as JSON.
std::string cell(const Json& value) {
  std::string text = value.is_string()         ? value.get<std::string>()
                     : value.is_number_float() ? fmt::format("{:.4g}", value.get<double>())
                     : value.is_null()         ? ""
                                               : dumped(value);
  std::string line;
  for (const char c : text) {
    if (c == '|') line += '\\';
    line += c == '\n' || c == '\r' ? ' ' : c;
  }
  return line;
}

/// What lies below a value, as "key value, key value" or "value, value".
std::string line_of(const Json& value) {
  if (!value.is_structured()) return cell(value);
  std::string text;
  for (const auto& [key, item] : value.items()) {
    const std::string line = line_of(item);
    if (line.empty()) continue;
    if (!text.empty()) text += ", ";
    text += value.is_object() ? cell(key) + " " + line : line;
  }
  return text;
}

/// Rows of a table: a value that is known by its path, a list in one, a list of objects in one each.
void add_rows(const Json& value, const std::string& path, std::string& rows) {
  const bool objects =
      value.is_array() && std::any_of(value.begin(), value.end(), [](const Json& item) { return item.is_object(); });
  if (!value.is_object() && !objects) {
    if (const std::string line = line_of(value); !line.empty()) rows += fmt::format("| {} | {} |\n", cell(path), line);
    return;
  }
  for (const auto& [key, item] : value.items()) {
    const std::string below = path.empty() ? key : path + "." + key;
    if (objects)
      rows += fmt::format("| {} | {} |\n", cell(below), line_of(item));
    else
      add_rows(item, below, rows);
  }
}

/// Student's, of a mean with this standard error over n rows; empty where that is not known.
std::string interval(const Json& entry) {
  if (!entry["value"].is_number() || !entry["stderr"].is_number() || !entry["n"].is_number_integer()) return "";
  const double error = entry["stderr"].get<double>();
  const auto n = entry["n"].get<int64_t>();
  if (!(error > 0) || n < 2) return "";
  const boost::math::students_t student(static_cast<double>(n - 1));
  const double value = entry["value"].get<double>(), reach = boost::math::quantile(student, 0.975) * error;
  return fmt::format("{:.4g} to {:.4g}", value - reach, value + reach);
}

std::string front_matter(const ModelVersion& version, const Json& evaluations) {
  std::string text = "---\nlibrary_name: gguf\npipeline_tag: text-generation\n";
  // JSON's texts and lists are YAML too.
  for (const char* key : {"license", "base_model", "datasets", "language"})
    if (version.info.is_object() && version.info.contains(key))
      text += fmt::format("{}: {}\n", key, dumped(version.info[key]));
  std::string results;
  for (const Json& entry : evaluations)
    if (entry["value"].is_number())
      results += fmt::format(
          "      - task: {{type: text-generation}}\n        dataset: {{name: {0}, type: {0}}}\n"
          "        metrics: [{{type: {1}, value: {2}}}]\n",
          dumped(entry["data"].get<std::string>().empty() ? Json("held-out") : entry["data"]), dumped(entry["name"]),
          dumped(entry["value"]));
  if (!results.empty())
    text += fmt::format("model-index:\n  - name: {}\n    results:\n{}", dumped(version.model), results);
  return text + "---\n";
}

}  // namespace

Json describe_decision(const RegistryDecision& decision) {
  return {{"id", decision.id},
          {"at", decision.at},
          {"kind", decision.kind},
          {"slot", decision.slot},
          {"key", decision.key},
          {"exit", decision.exit},
          {"reasons", decision.reasons},
          {"challenger", decision.challenger},
          {"champion", decision.champion},
          {"verdict", decision.verdict}};
}

Json describe_version(const Registry& registry, const ModelVersion& version) {
  Json aliases = Json::array();
  for (const char* name : {"champion", "challenger", "previous"})
    if (const auto found = registry.alias(version.model, name); found && found->sha256 == version.sha256)
      aliases.push_back(name);
  Json decisions = Json::array();
  for (const RegistryDecision& decision : registry.decisions(version.model))
    if (decision.challenger == version.sha256) decisions.push_back(describe_decision(decision));
  return {{"model", version.model},
          {"sha256", version.sha256},
          {"file", fs::relative(version.file, registry.folder()).string()},
          {"bytes", version.bytes},
          {"added_at", version.added_at},
          {"removed", version.removed},
          {"aliases", aliases},
          {"info", version.info},
          {"evaluations", registry.evaluations(version.model, version.sha256)},
          {"drift", registry.drift_state(version.model, version.sha256)},
          {"decisions", decisions}};
}

std::string model_card(const Registry& registry, const ModelVersion& version) {
  const Json all = describe_version(registry, version);
  std::string text = front_matter(version, all["evaluations"]);
  text += fmt::format("\n# {}\n\n| | |\n|---|---|\n| file | {} |\n| bytes | {} |\n| SHA-256 | `{}` |\n| added | {} |\n",
                      version.model, cell(version.file.filename().string()), version.bytes, version.sha256,
                      day_and_time(version.added_at));
  for (const Json& alias : all["aliases"]) text += fmt::format("| is | {} |\n", cell(alias));
  std::string sections;
  if (version.info.is_object()) {
    for (const auto& [key, value] : version.info.items()) {
      const bool section = value.is_object() && !value.empty();
      if (section) sections += fmt::format("\n## {}\n\n| | |\n|---|---|\n", cell(key));
      add_rows(value, section ? "" : key, section ? sections : text);
    }
  }
  if (!all["evaluations"].empty()) {
    text +=
        "\n## Evaluations\n\n| what | data | on | value | 95 % interval | standard error | rows |\n"
        "|---|---|---|---|---|---|---|\n";
    for (const Json& entry : all["evaluations"])
      text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", cell(entry["name"]), cell(entry["data"]),
                          cell(entry["on"]), cell(entry["value"]), interval(entry), cell(entry["stderr"]),
                          cell(entry["n"]));
  }
  if (!all["decisions"].empty()) text += "\n## Decisions\n\n";
  for (const Json& decision : all["decisions"]) {
    text += fmt::format("- {}{}{}: {}\n", day_and_time(decision["at"].get<int64_t>()),
                        decision["slot"] == "" ? "" : ", slot ", cell(decision["slot"]), cell(decision["kind"]));
    for (const Json& reason : decision["reasons"]) text += fmt::format("  - {}\n", cell(reason));
  }
  if (!all["drift"].is_null()) {
    text += "\n## Drift since\n\n| | |\n|---|---|\n";
    add_rows(all["drift"], "", text);
  }
  return text + sections;
}

void export_version(const Registry& registry, const ModelVersion& version, const fs::path& folder) {
  if (fs::exists(folder)) fail(Exit::usage, "{}: exists already; choose another name", folder.string());
  if (version.removed || !is_intact(version.file, version.sha256))
    fail(Exit::bad_input, "{}: {}", version.file.string(),
         version.removed ? "was removed by gc" : "is missing or no longer has its hash");
  AtomicFolder fresh(folder);
  const fs::path& to = fresh.temporary();
  const std::string name = version.file.filename().string();
  copy_atomic(version.file, to / name);
  write_atomic(to / "README.md", model_card(registry, version));
  write_json(to / "version.json", describe_version(registry, version));
  std::string lines;
  for (const RegistryDecision& decision : registry.decisions(version.model))
    lines += dumped(describe_decision(decision)) + "\n";
  write_atomic(to / "decisions.jsonl", lines);
  std::string sums;
  for (const std::string& file :
       {name, std::string("README.md"), std::string("version.json"), std::string("decisions.jsonl")})
    sums += fmt::format("{}  {}\n", sha256_file(to / file), file);
  write_atomic(to / "SHA256SUMS", sums);
  fresh.commit();
}

}  // namespace retort
