#include "recipes/guards.h"

#include <optional>

#include "core/files.h"
#include "core/hash.h"
#include "core/sources.h"
#include "recipes/prepare.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// Lines into a file that appears when it is complete.
class LineFile {
 public:
  explicit LineFile(const fs::path& path) : file_(path) {}
  void add(std::string_view line) {
    buffer_ += line;
    if (buffer_.size() >= size_t{1} << 16) flush();
  }
  void commit() {
    flush();
    file_.commit();
  }

 private:
  void flush() {
    file_.write(buffer_);
    buffer_.clear();
  }
  AtomicFile file_;
  std::string buffer_;
};

std::optional<GuardTotals> recorded(const fs::path& folder) {
  const fs::path file = folder / "totals.json";
  if (!fs::exists(file) || !fs::exists(folder / "audit.jsonl")) return std::nullopt;
  mark_used(folder);
  try {
    return guard_totals_from(read_json(file), file.string());
  } catch (const Error& damaged) {
    // The rows are at hand, so a record that does not read is made again.
    if (damaged.exit() != Exit::bad_input) throw;
    return std::nullopt;
  }
}

Json clean_row(const Chat& chat) {
  if (chat.messages.empty()) return {{"text", chat.text}};
  Json messages = Json::array();
  for (const Message& message : chat.messages)
    messages.push_back({{"role", message.role}, {"content", message.content}});
  return {{"messages", messages}};
}

/// Rows that an evaluator has of its own: read at once, as what they are decides which record of a pass is right.
GuardSource source_of(const std::string& name, std::vector<Chat> rows) {
  Sha256 hash;
  for (const Chat& row : rows) {
    hash.update(fmt::format("{}\n", row.place));
    for (const Message& message : row.messages)
      hash.update(fmt::format("{}:{}", message.content.size(), message.content));
  }
  const auto kept = std::make_shared<const std::vector<Chat>>(std::move(rows));
  return {name,
          [kept] {
            return [kept, next = size_t{0}](Chat& chat) mutable {
              if (next == kept->size()) return false;
              chat = (*kept)[next++];
              return true;
            };
          },
          hash.hex()};
}

}  // namespace

GuardPass guard_pass(const Recipe& recipe, const std::vector<DatasetOptions>& train,
                     const std::vector<DatasetOptions>& validation, const ProgressSink& progress) {
  GuardPass pass;
  pass.rows = {"data.train", [train] { return chats_of(train); }};
  pass.options = recipe.data.guards;
  pass.context.resolve = [named = std::make_shared<const Recipe>(recipe), progress](const std::string& path) {
    Progress shown(progress);
    return pull(source_of(*named, path), {.progress = &shown});
  };
  // The gate and most evaluators look at the same held-out rows; the others bring theirs.
  pass.context.held_out = {{"validation", [validation] { return chats_of(validation); }}};
  for (const Evaluator& evaluator : recipe.evaluate)
    if (evaluator.kind->held_out)
      pass.context.held_out.push_back(
          source_of(evaluator.options->name, evaluator.kind->held_out(*evaluator.options, pass.context.resolve)));
  return pass;
}

std::string guarded_hash(const GuardPass& pass, const std::string& train_hash, const std::string& validation_hash) {
  std::string own_rows;
  for (const GuardSource& source : pass.context.held_out) own_rows += source.hash;
  return sha256_hex(train_hash + validation_hash + own_rows + guards_hash(pass.options, pass.context.resolve));
}

RecordedPass::RecordedPass(GuardPass pass, const std::string& hash)
    : pass_(std::move(pass)), folder_(cache_folder() / "guards" / hash) {}

Stream<Chat> RecordedPass::rows() {
  struct Record {
    AtomicFolder folder;
    LineFile audit;
    std::shared_ptr<GuardTotals> totals = std::make_shared<GuardTotals>();
    Stream<Chat> rows;
    explicit Record(const fs::path& path) : folder(path), audit(folder.temporary() / "audit.jsonl") {}
  };
  return [pass = pass_, path = folder_, record = std::shared_ptr<Record>()](Chat& chat) mutable {
    if (!record) {
      record = std::make_shared<Record>(path);
      pass.audit = [audit = &record->audit](std::string_view line) { audit->add(line); };
      record->rows = guarded(pass, record->totals);
    }
    if (record->rows(chat)) return true;
    record->audit.commit();
    write_json(record->folder.temporary() / "totals.json", record->totals->to_json());
    record->folder.commit();
    return false;
  };
}

GuardTotals RecordedPass::totals() {
  if (auto totals = recorded(folder_)) return *totals;
  const Stream<Chat> again = rows();
  for (Chat chat; again(chat);) continue;
  return recorded(folder_).value();
}

GuardTotals run_guards(const Recipe& recipe, const fs::path& audit, const fs::path& clean,
                       const ProgressSink& progress) {
  const auto train = with_local_paths(recipe, recipe.data.train, progress);
  const auto validation = with_local_paths(recipe, recipe.data.validation, progress);
  GuardPass pass = guard_pass(recipe, train, validation, progress);
  LineFile findings(audit);
  std::optional<LineFile> kept;
  if (!clean.empty()) kept.emplace(clean);
  pass.audit = [&](std::string_view line) { findings.add(line); };
  pass.stop_at_refusal = false;
  auto totals = std::make_shared<GuardTotals>();
  Progress shown(progress);
  shown.start("guards", 0);
  const Stream<Chat> rows = guarded(pass, totals);
  for (Chat chat; rows(chat); chat = {}) {
    shown.update(static_cast<uint64_t>(totals->rows));
    if (kept) kept->add(clean_row(chat).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  shown.finish();
  findings.commit();
  if (kept && totals->refused == 0) kept->commit();
  return *totals;
}

Json guards_json(const GuardTotals& totals) {
  Json guards = totals.to_json();
  guards["limits"] = guards_limits;
  return guards;
}

std::string describe_guards(const Json& guards) {
  const auto number = [&](const char* key) { return guards[key].get<int64_t>(); };
  std::string text =
      fmt::format("guards       {} of {} rows stay, {} changed, {} dropped, {} refused\n", number("kept"),
                  number("rows"), number("changed"), number("dropped"), number("refused"));
  for (const auto& [guard, rules] : guards["rules"].items())
    for (const auto& [name, rule] : rules.items())
      text += fmt::format("guard        {}.{}: {} in {} rows, {}\n", guard, name, rule["findings"].get<int64_t>(),
                          rule["rows"].get<int64_t>(), rule["action"].get<std::string>());
  return text + "guard        " + guards["limits"].get<std::string>() + "\n";
}

}  // namespace retort
