#include "data/guard_run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <tuple>
#include <unordered_map>

#include "core/hash.h"
#include "data/guard_audit.h"

namespace retort {

const char* const guards_limits =
    "Names of people and places were not looked for: that needs a language model. Patterns find what has a form.";

namespace {

constexpr size_t block_rows = 4096;
constexpr size_t block_bytes = 8 << 20;

/// A guard with its options, ready to look.
struct Made {
  std::string name;
  const GuardKind* kind;
  std::shared_ptr<const GuardOptions> options;
  Look look;
};

/// A finding and what is done about it.
struct Judged {
  const Made* guard;
  Finding finding;
  GuardAction action;
  std::string line;  ///< of the audit
};

template <typename C>
auto& text_of(C& chat, int32_t message) {
  return message == Finding::whole_text ? chat.text : chat.messages[static_cast<size_t>(message)].content;
}

size_t bytes_of(const Chat& chat) {
  size_t bytes = chat.text.size();
  for (const Message& message : chat.messages) bytes += message.content.size();
  return bytes;
}

std::string place_of(const Finding& finding) {
  if (finding.begin == finding.end) return "the row";
  const std::string range = fmt::format("bytes {} to {}", finding.begin, finding.end);
  return finding.message == Finding::whole_text ? range : fmt::format("{} of message {}", range, finding.message + 1);
}

class Pass {
 public:
  Pass(const GuardPass& pass, std::shared_ptr<GuardTotals> totals, const std::string& key)
      : pass_(pass), totals_(std::move(totals)), audit_(key) {
    rows_ = pass.rows.open();
    read_block();
    GuardContext context = pass.context;
    context.first_rows = std::make_shared<FirstRows>(block_);
    for (const auto& [name, options] : pass.options.kinds) {
      const GuardKind* kind = guard_kinds().at(name);
      if (key.empty()) require_no_hash(name, *options);
      guards_.push_back({name, kind, options, kind->make(*options, context)});
    }
    look_at_block();
  }

  bool next(Chat& chat) {
    for (;;) {
      if (next_ == block_.size()) {
        read_block();
        if (block_.empty()) return finish();
        look_at_block();
      }
      const size_t row = next_++;
      if (!decide(row)) continue;
      chat = std::move(block_[row]);
      return true;
    }
  }

 private:
  static void require_no_hash(const std::string& name, const GuardOptions& options) {
    bool hashes = options.action == "hash";
    for (const auto& [rule, action] : options.actions) hashes |= action == "hash";
    if (hashes)
      fail(Exit::usage,
           "data.guards.{}: action: hash needs the project's key: give data.guards.key_file, a file of at least 16 "
           "bytes (openssl rand -hex 32), or the environment variable RETORT_PROJECT_KEY",
           name);
  }

  bool finish() {
    if (totals_->rows > 0 && totals_->kept == 0 && totals_->refused == 0)
      fail(Exit::data_guard, "the guards dropped all {} training rows ({}). `retort guard` lists why", totals_->rows,
           pass_.rows.name);
    return false;
  }

  void read_block() {
    block_.clear();
    next_ = 0;
    size_t bytes = 0;
    for (Chat chat; block_.size() < block_rows && bytes < block_bytes && rows_(chat); chat = {}) {
      bytes += bytes_of(chat);
      block_.push_back(std::move(chat));
    }
  }

  /// Lets every guard look at the rows that were read, on all threads.
  void look_at_block() {
    found_.assign(block_.size(), {});
    in_order_.assign(block_.size(), {});
    begun_.assign(block_.size(), {});
    std::atomic<size_t> taken{0};
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      std::vector<Finding> findings;
      for (size_t row; (row = taken++) < block_.size();) look_at(row, findings);
    });
  }

  /// `findings` is empty, before and after.
  void look_at(size_t row, std::vector<Finding>& findings) {
    const GuardRow seen(block_[row]);
    for (const Made& guard : guards_) {
      if (LookInOrder later = guard.look(seen, findings)) in_order_[row].emplace_back(&guard, std::move(later));
      judge(guard, row, findings);
    }
  }

  void judge(const Made& guard, size_t row, std::vector<Finding>& findings) {
    for (Finding& finding : findings) {
      check(guard, row, finding);
      const GuardAction action = guard.options->action_of(finding.rule);
      std::string line;
      if (pass_.audit) {
        if (begun_[row].empty()) begun_[row] = audit_.begin_row(block_[row]);
        line = audit_.line(begun_[row], block_[row], guard.name, finding, action);
      }
      found_[row].push_back({&guard, std::move(finding), action, std::move(line)});
    }
    findings.clear();
  }

  void check(const Made& guard, size_t row, const Finding& finding) const {
    const Chat& chat = block_[row];
    const bool text = finding.message == Finding::whole_text ||
                      (finding.message >= 0 && static_cast<size_t>(finding.message) < chat.messages.size());
    if (!text || finding.begin > finding.end || finding.end > text_of(block_[row], finding.message).size())
      fail(Exit::internal, "{}: guard {} found {} at bytes {} to {} of message {}, which the row does not have",
           chat.place, guard.name, finding.rule, finding.begin, finding.end, finding.message);
  }

  /// Whether the row stays. Called in the order of the rows.
  bool decide(size_t row) {
    std::vector<Judged>& found = found_[row];
    const auto goes = [](const Judged& judged) {
      return judged.action == GuardAction::drop || judged.action == GuardAction::fail;
    };
    std::vector<Finding> findings;
    for (auto& [guard, look] : in_order_[row]) {
      if (std::any_of(found.begin(), found.end(), goes)) break;
      look(findings);
      judge(*guard, row, findings);
    }
    ++totals_->rows;
    if (!found.empty()) record(row);
    if (std::none_of(found.begin(), found.end(), goes)) {
      ++totals_->kept;
      replace(row);
      return true;
    }
    bool refused = false;
    for (const Judged& judged : found) refused |= judged.action == GuardAction::fail;
    ++(refused ? totals_->refused : totals_->dropped);
    if (refused && pass_.stop_at_refusal) refuse(row);
    return false;
  }

  [[noreturn]] void refuse(size_t row) const {
    const auto first = std::find_if(found_[row].begin(), found_[row].end(),
                                    [](const Judged& judged) { return judged.action == GuardAction::fail; });
    const Finding& finding = first->finding;
    fail(first->guard->kind->refusal,
         "{}: guard {} found {} in {}{}{}, and data.guards.{} says fail. `retort guard` lists every finding; other "
         "actions: drop, report",
         block_[row].place, first->guard->name, finding.rule, place_of(finding), finding.detail.empty() ? "" : ": ",
         finding.detail, first->guard->name);
  }

  /// Counts a row's findings and hands them to the audit.
  void record(size_t row) {
    counted_.clear();
    for (const Judged& judged : found_[row]) {
      GuardTotals::Rule& rule = rule_of(judged);
      ++rule.findings;
      if (std::find(counted_.begin(), counted_.end(), &rule) == counted_.end()) {
        counted_.push_back(&rule);
        ++rule.rows;
      }
      if (pass_.audit) pass_.audit(judged.line);
    }
  }

  /// Its place in the totals.
  GuardTotals::Rule& rule_of(const Judged& judged) {
    GuardTotals::Rule*& rule = rules_[judged.guard][judged.finding.rule];
    if (!rule) rule = &totals_->rules[judged.guard->name][judged.finding.rule];
    if (rule->findings == 0) rule->action = name_of(judged.action);
    return *rule;
  }

  /// Puts placeholders where action is redact or hash. Findings that overlap become one, named by the first and
  /// longest.
  void replace(size_t row) {
    struct Change {
      int32_t message;
      size_t begin, end;
      std::string text;
    };
    Chat& chat = block_[row];
    std::vector<Change> changes;
    for (const Judged& judged : found_[row])
      if ((judged.action == GuardAction::redact || judged.action == GuardAction::hash) &&
          judged.finding.begin < judged.finding.end)
        changes.push_back({judged.finding.message, judged.finding.begin, judged.finding.end,
                           audit_.placeholder(chat, judged.finding, judged.action)});
    if (changes.empty()) return;
    ++totals_->changed;
    std::stable_sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
      return std::tie(a.message, a.begin, b.end) < std::tie(b.message, b.begin, a.end);
    });
    size_t kept = 0;
    for (size_t i = 1; i < changes.size(); ++i) {
      Change &last = changes[kept], &change = changes[i];
      if (change.message == last.message && change.begin < last.end)
        last.end = std::max(last.end, change.end);
      else if (++kept != i)
        changes[kept] = std::move(change);
    }
    changes.resize(kept + 1);
    for (auto change = changes.rbegin(); change != changes.rend(); ++change)
      text_of(chat, change->message).replace(change->begin, change->end - change->begin, change->text);
  }

  GuardPass pass_;
  std::shared_ptr<GuardTotals> totals_;
  GuardAudit audit_;
  std::vector<Made> guards_;
  Stream<Chat> rows_;
  std::vector<Chat> block_;
  std::vector<std::vector<Judged>> found_;                                  // by row of the block
  std::vector<std::vector<std::pair<const Made*, LookInOrder>>> in_order_;  // by row of the block
  std::vector<std::string> begun_;  // by row of the block: the beginning of its audit lines
  std::unordered_map<const Made*, std::unordered_map<std::string, GuardTotals::Rule*>> rules_;  // of the totals
  std::vector<const GuardTotals::Rule*> counted_;                                               // of record()
  size_t next_ = 0;
};

}  // namespace

Json GuardTotals::to_json() const {
  Json all = Json::object();
  for (const auto& [guard, rules_of_guard] : rules)
    for (const auto& [name, rule] : rules_of_guard)
      all[guard][name] = {{"action", rule.action}, {"findings", rule.findings}, {"rows", rule.rows}};
  return {{"rows", rows},       {"kept", kept},       {"changed", changed},
          {"dropped", dropped}, {"refused", refused}, {"rules", all}};
}

GuardTotals guard_totals_from(const Json& json, const std::string& where) {
  GuardTotals totals;
  totals.rows = json_get<int64_t>(json, "rows", where);
  totals.kept = json_get<int64_t>(json, "kept", where);
  totals.changed = json_get<int64_t>(json, "changed", where);
  totals.dropped = json_get<int64_t>(json, "dropped", where);
  totals.refused = json_get<int64_t>(json, "refused", where);
  const auto rules = json_get<std::map<std::string, std::map<std::string, Json>>>(json, "rules", where);
  for (const auto& [guard, rules_of_guard] : rules)
    for (const auto& [name, rule] : rules_of_guard)
      totals.rules[guard][name] = {json_get<std::string>(rule, "action", where),
                                   json_get<int64_t>(rule, "findings", where), json_get<int64_t>(rule, "rows", where)};
  return totals;
}

Stream<Chat> guarded(const GuardPass& pass, std::shared_ptr<GuardTotals> totals) {
  return [pass, totals, running = std::shared_ptr<Pass>()](Chat& chat) mutable {
    if (!running) running = std::make_shared<Pass>(pass, totals, guard_key(pass.options));
    return running->next(chat);
  };
}

Exit refusal_of(const GuardTotals& totals) {
  Exit exit = Exit::done;
  for (const auto& [guard, rules] : totals.rules)
    for (const auto& [name, rule] : rules)
      if (rule.action == "fail" && exit != Exit::contamination) exit = guard_kinds().at(guard)->refusal;
  return exit;
}

std::string guards_hash(const GuardsOptions& options,
                        const std::function<std::filesystem::path(const std::string&)>& resolve) {
  Sha256 hash;
  Json without_place = json_of(options);
  without_place.erase("key_file");
  hash.update("retort-guards-1" + without_place.dump());
  for (const auto& [name, of_kind] : options.kinds) {
    for (const std::string& path : guard_kinds().at(name)->files(*of_kind)) hash.update(sha256_file(resolve(path)));
    for (DatasetOptions& data : guard_kinds().at(name)->datasets(*of_kind)) {
      resolve_paths(data, resolve);
      hash.update(dataset_hash(data));
    }
  }
  if (const std::string key = guard_key(options); !key.empty()) hash.update(hmac_sha256(key, "retort-guards"));
  return hash.hex();
}

}  // namespace retort
