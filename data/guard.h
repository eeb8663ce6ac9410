// Guards: what training rows are searched for before they are trained on. One file a kind in data/guards/; what is
// done about the findings is the same for every kind (data/guard_run.h).
#pragma once

#include <cstdint>
#include <forward_list>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/schema.h"
#include "data/dataset.h"
#include "data/example.h"
#include "data/minhash.h"
#include "data/words.h"

namespace retort {

/// Where a guard found what. It never holds the value itself, which would end up in reports and logs.
struct Finding {
  static constexpr int32_t whole_text = -1;

  std::string rule;              ///< what was found: "email", "near"
  int32_t message = whole_text;  ///< index into chat.messages; whole_text: chat.text
  size_t begin = 0, end = 0;     ///< bytes of that text, whole characters; begin == end: the row as a whole
  std::string detail = {};       ///< for people, without the value: "Jaccard 0.91 with faq.jsonl:12"
};

/// What is done about a finding. redact and hash replace its bytes; drop leaves the row out; fail ends the run.
enum class GuardAction { report, redact, hash, drop, fail };
/// "report"; and back, Error(internal) for another name (the schema has refused it).
const char* name_of(GuardAction action);
GuardAction guard_action_from(const std::string& name);

/// A row as guards see it.
class GuardRow {
 public:
  explicit GuardRow(const Chat& chat) : chat_(chat) {}
  const Chat& chat() const { return chat_; }
  /// Each text of the row with its number for Finding::message.
  void each_text(const std::function<void(int32_t message, std::string_view text)>& look) const;
  /// The words of what the row says: all of its texts but the system's, one after the other. Made once, shared.
  const Words& words() const;
  /// minhash() of the words. Made once for all guards that ask for shingles of so many words, so many hashes, and leave
  /// out the same boilerplate.
  const MinHashSketch& sketch(const MinHashOptions& options,
                              const std::shared_ptr<const Boilerplate>& boilerplate) const;

 private:
  struct Sketched {
    int64_t words, hashes;
    std::shared_ptr<const Boilerplate> boilerplate;
    MinHashSketch sketch;
  };
  const Chat& chat_;
  mutable std::optional<Words> words_;
  mutable std::forward_list<Sketched> sketches_;
};

/// What must wait for the rows before: called alone, in the order of the rows, for rows that nothing else drops.
using LookInOrder = std::function<void(std::vector<Finding>&)>;
/// Adds what is found in a row. Called from several threads at once, so that it must not change what it captured;
/// what depends on other rows goes into the function that it returns (else none). A row's bytes may be invalid UTF-8.
using Look = std::function<LookInOrder(const GuardRow& row, std::vector<Finding>& findings)>;

/// The keys that every kind has; a kind's options inherit from it.
struct GuardOptions {
  std::string action = "report";
  std::map<std::string, std::string> actions;  ///< rule: action, where it is another
  GuardAction action_of(const std::string& rule) const;
};

/// Rows with a name for messages, opened anew by each call.
struct GuardSource {
  std::string name;
  std::function<Stream<Chat>()> open;
  std::string hash = {};  ///< SHA-256 of the rows; empty: their data sets' hashes tell
};

/// What a guard may look at while it is made.
struct GuardContext {
  std::vector<GuardSource> held_out;           ///< every evaluation and gate set
  std::shared_ptr<FirstRows> first_rows = {};  ///< the beginning of the rows that will pass; filled in by guarded()
  /// A path in an option (a source's name, a URI or a file) as a local file.
  std::function<std::filesystem::path(const std::string&)> resolve;
};

/// A rule that a kind always has.
struct GuardRule {
  const char* name;
  const char* text;  ///< one line: what is found
};

/// A kind of guard. Each data/guards/<name>.cpp defines `extern const GuardKind guard_<name>`.
struct GuardKind {
  const char* summary;              ///< one line: what is looked for
  std::vector<GuardRule> rules;     ///< those that ship; the options' files may name more
  Exit refusal = Exit::data_guard;  ///< exit code of action: fail
  bool by_default = false;          ///< runs, and reports, in a recipe that does not name it
  const SchemaBase& (*schema)();    ///< of its options: guard_schema<T>(…) with the kind's own fields
  std::shared_ptr<GuardOptions> (*read)(const Yaml&);  ///< read_guard_options<T>
  /// The files that the options name, beside the rows: their bytes belong to the data's identity.
  std::vector<std::string> (*files)(const GuardOptions&) = [](const GuardOptions&) -> std::vector<std::string> {
    return {};
  };
  /// The same for whole data sets.
  std::vector<DatasetOptions> (*datasets)(const GuardOptions&) =
      [](const GuardOptions&) -> std::vector<DatasetOptions> { return {}; };
  /// `options` is what `read` made. Error(usage), Error(bad_input).
  Look (*make)(const GuardOptions& options, const GuardContext& context);
};

/// Every kind by name.
const std::map<std::string, const GuardKind*>& guard_kinds();

/// The block data.guards: a map from kinds to their options, and what they share.
struct GuardsOptions {
  GuardsOptions();       ///< the kinds that run by default
  std::string key_file;  ///< the project's key; empty: the environment variable RETORT_PROJECT_KEY
  std::map<std::string, std::shared_ptr<const GuardOptions>> kinds;  ///< those that run
};
/// `kind: false` takes out one that runs by default.
void from_yaml(const Yaml& node, GuardsOptions& guards);
Json json_schema_of(GuardsOptions*);
Json json_of(const GuardsOptions& guards);

/// A schema that begins with `action` and `actions`. `values`: findings are places in a text, which can be replaced.
template <typename T>
Schema<T> guard_schema(const char* name, const char* summary, bool values) {
  std::vector<std::string> actions = {"report", "drop", "fail"};
  if (values) actions = {"report", "redact", "hash", "drop", "fail"};
  return Schema<T>(name, summary)
      .field("action", &GuardOptions::action, "what is done about a finding (docs/guards.md)", {.one_of = actions})
      .field("actions", &GuardOptions::actions, "rule: action, where it is another", {.one_of = actions});
}

template <typename T>
std::shared_ptr<GuardOptions> read_guard_options(const Yaml& node) {
  return std::make_shared<T>(from_yaml<T>(node));
}

}  // namespace retort
