// retort registry: which model serves and why.
#include "registry/registry.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "registry/card.h"

namespace retort {
namespace {
namespace fs = std::filesystem;

struct Arguments {
  fs::path folder = "runs/registry";
  std::string model, version = "champion", other, reason;
  fs::path out;
  KeepRule keep;
  bool json = false, dry_run = false;
};
using Shared = std::shared_ptr<Arguments>;

Registry reading(const Arguments& arguments) { return Registry(arguments.folder, Registry::Access::read); }

std::string short_hash(const std::string& sha256) { return sha256.empty() ? "–" : sha256.substr(0, 12); }

RegistryDecision by_hand(const Arguments& arguments) {
  RegistryDecision decision{.kind = ""};
  decision.reasons = {arguments.reason.empty() ? "by hand" : arguments.reason};
  return decision;
}

/// A registry that is there: a typing error must not make a new one.
Registry writing(const Arguments& arguments, bool create = false) {
  if (!create && !fs::exists(arguments.folder / "registry.sqlite"))
    fail(Exit::io, "{}: there is no registry in this folder", arguments.folder.string());
  return Registry(arguments.folder);
}

void print_json(const Json& value) { fmt::print("{}\n", value.dump(2, ' ', false, Json::error_handler_t::replace)); }

int list(const Arguments& arguments) {
  const Registry registry = reading(arguments);
  Json all = Json::array();
  for (const std::string& model : registry.models()) {
    Json entry{{"model", model}};
    for (const char* name : {"champion", "previous", "challenger"}) {
      const auto found = registry.alias(model, name);
      entry[name] = found ? Json(found->sha256) : Json();
    }
    const auto decisions = registry.decisions(model, 1);
    entry["versions"] = registry.versions(model).size();
    entry["last"] = decisions.empty() ? Json() : describe_decision(decisions.front());
    all.push_back(entry);
  }
  if (arguments.json) {
    print_json(all);
    return 0;
  }
  fmt::print("{:<24} {:<12} {:<12} {:>8}  {}\n", "model", "champion", "previous", "versions", "last decision");
  for (const Json& entry : all) {
    const auto hash = [&](const char* name) { return short_hash(entry[name].is_null() ? "" : entry[name]); };
    fmt::print("{:<24} {:<12} {:<12} {:>8}  {}\n", entry["model"].get<std::string>(), hash("champion"),
               hash("previous"), entry["versions"].get<int64_t>(),
               entry["last"].is_null() ? "–" : entry["last"]["kind"].get<std::string>());
  }
  return 0;
}

int show(const Arguments& arguments) {
  const Registry registry = reading(arguments);
  if (!arguments.other.empty()) {
    const ModelVersion version = registry.find(arguments.model, arguments.other);
    if (arguments.json)
      print_json(describe_version(registry, version));
    else
      fmt::print("{}", model_card(registry, version));
    return 0;
  }
  Json versions = Json::array(), decisions = Json::array();
  if (registry.versions(arguments.model).empty() && registry.decisions(arguments.model, 1).empty())
    registry.find(arguments.model, "champion");  // says what there is
  for (const ModelVersion& version : registry.versions(arguments.model))
    versions.push_back(describe_version(registry, version));
  for (const RegistryDecision& decision : registry.decisions(arguments.model))
    decisions.push_back(describe_decision(decision));
  if (arguments.json) {
    print_json({{"model", arguments.model}, {"versions", versions}, {"decisions", decisions}});
    return 0;
  }
  for (const Json& version : versions)
    fmt::print("{}  {:>14} bytes  {}{}\n", short_hash(version["sha256"]), version["bytes"].get<uint64_t>(),
               version["aliases"].empty()
                   ? ""
                   : fmt::format("{}", fmt::join(version["aliases"].get<std::vector<std::string>>(), ", ")),
               version["removed"] == true ? "removed" : "");
  fmt::print("\n");
  for (const Json& decision : decisions)
    fmt::print("{:>5}  {:<10}  {:<14} {}  {}\n", decision["id"].get<int64_t>(), decision["slot"].get<std::string>(),
               decision["kind"].get<std::string>(), short_hash(decision["challenger"]),
               decision["reasons"].empty() ? "" : decision["reasons"][0].get<std::string>());
  return 0;
}

int diff(const Arguments& arguments) {
  const Registry registry = reading(arguments);
  const Json a = describe_version(registry, registry.find(arguments.model, arguments.version));
  const Json b = describe_version(registry, registry.find(arguments.model, arguments.other));
  Json rows = Json::array();
  const auto add = [&](const std::string& what, const Json& left, const Json& right) {
    if (left != right) rows.push_back({{"what", what}, {"a", left}, {"b", right}});
  };
  add("sha256", a["sha256"], b["sha256"]);
  add("bytes", a["bytes"], b["bytes"]);
  const auto with = [&](const std::string& prefix, const Json& left, const Json& right) {
    for (const auto& [key, value] : left.items()) add(prefix + key, value, right.contains(key) ? right[key] : Json());
    for (const auto& [key, value] : right.items())
      if (!left.contains(key)) add(prefix + key, Json(), value);
  };
  with("info.", a["info"], b["info"]);
  // The newest figure of each name and data; who was champion then does not matter.
  const auto figures = [](const Json& version) {
    Json newest = Json::object();
    for (const Json& entry : version["evaluations"]) {
      const std::string name = entry["name"].get<std::string>() + " " + entry["data"].get<std::string>();
      if (!newest.contains(name)) newest[name] = entry["value"];
    }
    return newest;
  };
  with("evaluation.", figures(a), figures(b));
  if (arguments.json) {
    print_json(rows);
    return 0;
  }
  fmt::print("{:<40} {:<24} {}\n", "", arguments.version, arguments.other);
  for (const Json& row : rows) {
    const auto text = [](const Json& value) {
      return value.is_string() ? value.get<std::string>() : value.is_null() ? "–" : value.dump();
    };
    fmt::print("{:<40} {:<24} {}\n", row["what"].get<std::string>(), text(row["a"]).substr(0, 24), text(row["b"]));
  }
  return 0;
}

int told(const ModelVersion& version, const Arguments& arguments) {
  if (arguments.json)
    print_json({{"model", version.model}, {"champion", version.sha256}, {"file", version.file.string()}});
  else
    fmt::print("{}: {} serves\n", version.model, version.file.string());
  return 0;
}

int promote(const Arguments& arguments) {
  const bool is_file = fs::is_regular_file(arguments.other);
  Registry registry = writing(arguments, is_file);
  const auto lease = registry.lease(arguments.model);
  return told(is_file ? registry.promote(lease, arguments.other, by_hand(arguments))
                      : registry.promote_version(lease, arguments.other, by_hand(arguments)),
              arguments);
}

int roll_back(const Arguments& arguments) {
  Registry registry = writing(arguments);
  return told(registry.roll_back(registry.lease(arguments.model), by_hand(arguments)), arguments);
}

int gc(const Arguments& arguments) {
  Registry registry = writing(arguments);
  const auto removed = registry.gc(arguments.keep, arguments.dry_run);
  Json all = Json::array();
  uint64_t bytes = 0;
  for (const RemovedArtifact& artifact : removed) {
    all.push_back({{"sha256", artifact.sha256}, {"model", artifact.model}, {"bytes", artifact.bytes}});
    bytes += artifact.bytes;
    if (!arguments.json)
      fmt::print("{:<24} {} {}\n", artifact.model.empty() ? "(nobody's)" : artifact.model, artifact.sha256,
                 artifact.bytes);
  }
  if (arguments.json)
    print_json({{"dry_run", arguments.dry_run}, {"bytes", bytes}, {"removed", all}});
  else
    fmt::print("{} files, {} bytes {}\n", removed.size(), bytes, arguments.dry_run ? "would go" : "removed");
  return 0;
}

int export_model(const Arguments& arguments) {
  const Registry registry = reading(arguments);
  export_version(registry, registry.find(arguments.model, arguments.version), arguments.out);
  fmt::print("{}\n", arguments.out.string());
  return 0;
}

int card(const Arguments& arguments) {
  const Registry registry = reading(arguments);
  fmt::print("{}", model_card(registry, registry.find(arguments.model, arguments.version)));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  app.require_subcommand(1);
  auto given = std::make_shared<Arguments>();
  auto chosen = std::make_shared<int (*)(const Arguments&)>(nullptr);
  const auto add = [&](const char* name, const char* summary, int (*action)(const Arguments&)) {
    CLI::App* sub = app.add_subcommand(name, summary);
    sub->add_option("--registry", given->folder, "the registry's folder")->capture_default_str();
    sub->callback([chosen, action] { *chosen = action; });
    return sub;
  };
  const auto model = [&](CLI::App* sub) { sub->add_option("model", given->model, "its name")->required(); };
  const auto json = [&](CLI::App* sub) { sub->add_flag("--json", given->json, "print JSON"); };
  json(add("list", "The models, and what serves.", list));
  CLI::App* sub = add("show", "A model's versions and decisions, or one version.", show);
  model(sub), json(sub);
  sub->add_option("version", given->other, "champion, previous, challenger or the first digits of a hash");
  sub = add("diff", "What two versions differ in.", diff);
  model(sub), json(sub);
  sub->add_option("a", given->version, "a version")->required();
  sub->add_option("b", given->other, "another version")->required();
  sub = add("promote", "Make a file or a version the champion, by hand.", promote);
  model(sub), json(sub);
  sub->add_option("what", given->other, "a file, or a version that the registry has")->required();
  sub->add_option("--reason", given->reason, "kept with the decision");
  sub = add("rollback", "Make the previous version the champion again.", roll_back);
  model(sub), json(sub);
  sub->add_option("--reason", given->reason, "kept with the decision");
  sub = add("gc", "Remove files that no alias and no rule keeps.", gc);
  json(sub);
  sub->add_option("--keep", given->keep.last, "of each model, the versions promoted last")->capture_default_str();
  sub->add_option("--days", given->keep.days, "what was added or decided upon since")->capture_default_str();
  sub->add_flag("--dry-run", given->dry_run, "only say what would go");
  sub = add("export", "A folder with a version's file, card, decisions and hashes.", export_model);
  model(sub);
  sub->add_option("--version", given->version, "which one")->capture_default_str();
  sub->add_option("--out", given->out, "the folder, which must not exist")->required();
  sub = add("card", "The model card of a version.", card);
  model(sub);
  sub->add_option("--version", given->version, "which one")->capture_default_str();
  return [=] { return (*chosen)(*given); };
}

}  // namespace

extern const Command command_registry;
const Command command_registry = {"registry", "See, change and clean up which model serves, and why.",
                                  "  retort registry list\n"
                                  "  retort registry show foldoc champion\n"
                                  "  retort registry promote foldoc model.gguf --reason \"first one\"\n"
                                  "  retort registry rollback foldoc --reason \"answers too long\"\n"
                                  "  retort registry gc --keep 5 --days 30 --dry-run\n",
                                  setup};

}  // namespace retort
