#include "adapters/match.h"

#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/schema.h"

namespace retort {
namespace {

bool equals_or_ends(const std::string& name, const std::string& part) {
  if (name == part) return true;
  return name.size() > part.size() + 1 && name.ends_with(part) && name[name.size() - part.size() - 1] == '.';
}

/// "model.layers.3.mlp.up_proj" -> "up_proj"
std::string leaf(const std::string& name) { return name.substr(name.rfind('.') + 1); }

/// Every module once for all layers: "model.layers.0-29.mlp.up_proj, …".
std::string listed(const std::vector<std::string>& names) {
  static const RE2 number("\\.(\\d+)\\.");
  struct Range {
    std::string before, after;
    int64_t first = 0, last = 0;
    bool numbered = false;
  };
  std::vector<Range> ranges;
  for (const std::string& name : names) {
    Range range{.before = name, .after = ""};
    re2::StringPiece digits;
    if (RE2::PartialMatch(name, number, &digits)) {
      const size_t at = static_cast<size_t>(digits.data() - name.data());
      range = {name.substr(0, at), name.substr(at + digits.size()), std::stoll(std::string(digits)), 0, true};
      range.last = range.first;
    }
    bool known = false;
    for (Range& r : ranges) {
      if (r.before != range.before || r.after != range.after) continue;
      r.last = std::max(r.last, range.last);
      known = true;
    }
    if (!known) ranges.push_back(range);
  }
  std::string text;
  for (const Range& r : ranges) {
    text += text.empty() ? "" : ", ";
    text += r.before;
    if (r.numbered) text += r.first == r.last ? fmt::format("{}", r.first) : fmt::format("{}-{}", r.first, r.last);
    text += r.after;
  }
  return text;
}

[[noreturn]] void refuse_unmatched(const std::string& key, const std::string& found,
                                   const std::vector<std::string>& names) {
  std::set<std::string> known(names.begin(), names.end());
  for (const std::string& name : names) known.insert(leaf(name));
  const std::string near = did_you_mean(found, {known.begin(), known.end()});
  fail(Exit::usage, "{}: \"{}\" matches no linear layer{}. The model's linear layers: {}", key, found,
       near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near), listed(names));
}

/// One choice with its expression compiled once, counting what each of its parts matched.
class Chooser {
 public:
  explicit Chooser(ModuleChoice choice) : choice_(std::move(choice)), hits_(choice_.names.size(), 0) {
    if (!choice_.expression.empty()) expression_ = std::make_unique<RE2>(choice_.expression, RE2::Quiet);
  }
  bool matches(const std::string& name) {
    if (expression_) {
      const bool hit = RE2::FullMatch(name, *expression_);
      expression_hits_ += hit;
      return hit;
    }
    bool any = false;
    for (size_t i = 0; i < choice_.names.size(); ++i) {
      const bool hit = equals_or_ends(name, choice_.names[i]);
      hits_[i] += hit;
      any = any || hit;
    }
    return any;
  }
  /// A list's entry that is the whole name: PEFT then asks no further (layers_to_transform does not count).
  bool names_wholly(const std::string& name) const {
    return std::find(choice_.names.begin(), choice_.names.end(), name) != choice_.names.end();
  }
  void refuse_idle(const std::string& key, const std::vector<std::string>& names) const {
    if (expression_ && expression_hits_ == 0) refuse_unmatched(key, choice_.expression, names);
    for (size_t i = 0; i < hits_.size(); ++i)
      if (hits_[i] == 0) refuse_unmatched(key, choice_.names[i], names);
  }

 private:
  ModuleChoice choice_;
  std::unique_ptr<RE2> expression_;
  int64_t expression_hits_ = 0;
  std::vector<int64_t> hits_;
};

/// The number of a module's layer: the first numeric segment, or the one after a segment that layers_pattern names.
class LayerNumber {
 public:
  explicit LayerNumber(const std::vector<std::string>& patterns) {
    if (patterns.empty()) expressions_.push_back(std::make_unique<RE2>("^.*?\\.[^.]*\\.(\\d+)\\."));
    for (const std::string& pattern : patterns)
      expressions_.push_back(std::make_unique<RE2>(fmt::format("^(?:|.*?\\.)(?:{})\\.(\\d+)\\.", pattern)));
  }
  std::optional<int64_t> of(const std::string& name) const {
    for (const auto& expression : expressions_) {
      // The number is the last group: a pattern may hold groups of its own.
      const int groups = expression->NumberOfCapturingGroups();
      std::vector<re2::StringPiece> found(static_cast<size_t>(groups) + 1);
      if (!expression->Match(name, 0, name.size(), RE2::UNANCHORED, found.data(), groups + 1)) continue;
      int64_t layer = 0;
      const re2::StringPiece digits = found.back();
      if (RE2::FullMatch(digits, "(\\d+)", &layer)) return layer;
    }
    return std::nullopt;
  }

 private:
  std::vector<std::unique_ptr<RE2>> expressions_;
};

/// rank_pattern or alpha_pattern. PEFT takes the first hit, but saving sorts the keys: only patterns that never meet
/// are safe.
template <typename Value>
class Patterns {
 public:
  Patterns(const char* key, const std::map<std::string, Value>& patterns) : key_(key) {
    for (const auto& [pattern, value] : patterns)
      entries_.push_back(
          {pattern, value, std::make_unique<RE2>(fmt::format("(?:.*\\.)?(?:{})", pattern), RE2::Quiet), 0});
  }
  Value of(const std::string& name, Value otherwise) {
    const Entry* hit = nullptr;
    for (Entry& entry : entries_) {
      if (!RE2::FullMatch(name, *entry.expression)) continue;
      ++entry.hits;
      if (hit)
        fail(Exit::usage,
             "{}: \"{}\" and \"{}\" both match {}; which one holds would depend on their order, which files do not "
             "keep. Make them match different modules",
             key_, hit->pattern, entry.pattern, name);
      hit = &entry;
    }
    return hit ? hit->value : otherwise;
  }
  void refuse_idle(const std::vector<std::string>& targets) const {
    for (const Entry& entry : entries_)
      if (entry.hits == 0) refuse_unmatched(key_, entry.pattern, targets);
  }

 private:
  struct Entry {
    std::string pattern;
    Value value;
    std::unique_ptr<RE2> expression;
    int64_t hits;
  };
  const char* key_;
  std::vector<Entry> entries_;
};

}  // namespace

std::vector<Target> match_targets(const AdapterOptions& options, const std::vector<std::string>& names,
                                  const std::string& head) {
  check_options(options);
  const bool all_linear = options.target_modules.all_linear();
  Chooser excluded(options.exclude_modules);
  Chooser chosen(all_linear ? ModuleChoice{} : options.target_modules);
  const LayerNumber layer_number(options.layers_pattern);
  Patterns<int64_t> ranks("rank_pattern", options.rank_pattern);
  Patterns<double> alphas("alpha_pattern", options.alpha_pattern);

  std::vector<Target> targets;
  std::vector<std::string> target_names;
  std::set<int64_t> layers_hit;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    const bool is_excluded = excluded.matches(name);
    if (!(all_linear ? name != head && leaf(name) != "embed_tokens" : chosen.matches(name)) || is_excluded) continue;
    if (!options.layers_to_transform.empty() && !chosen.names_wholly(name)) {
      const std::optional<int64_t> layer = layer_number.of(name);
      const auto& wanted = options.layers_to_transform;
      if (!layer || std::find(wanted.begin(), wanted.end(), *layer) == wanted.end()) continue;
      layers_hit.insert(*layer);
    }
    Target target{.index = i, .r = ranks.of(name, options.r), .alpha = alphas.of(name, options.lora_alpha)};
    const double r = static_cast<double>(target.r);
    target.scale = target.alpha / (options.use_rslora ? std::sqrt(r) : r);
    targets.push_back(target);
    target_names.push_back(name);
  }

  chosen.refuse_idle("target_modules", names);
  excluded.refuse_idle("exclude_modules", names);
  for (int64_t layer : options.layers_to_transform)
    if (!layers_hit.contains(layer) && !targets.empty())
      fail(Exit::usage, "layers_to_transform: no target lies in layer {}. The model's linear layers: {}", layer,
           listed(names));
  if (targets.empty())
    fail(Exit::usage,
         "no linear layer is left after target_modules, exclude_modules and layers_to_transform. The "
         "model's linear layers: {}",
         listed(names));
  ranks.refuse_idle(target_names);
  alphas.refuse_idle(target_names);
  return targets;
}

bool chooses(const ModuleChoice& choice, const std::string& name) {
  if (!choice.expression.empty()) return choice.all_linear() || RE2::FullMatch(name, choice.expression);
  return std::any_of(choice.names.begin(), choice.names.end(),
                     [&](const std::string& part) { return equals_or_ends(name, part); });
}

}  // namespace retort
