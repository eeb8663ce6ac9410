// llama.cpp knows pre-tokenizers by name, tokenizer.json spells them out. The names are found by comparing the rules
// themselves: llama.cpp's converter hashes the tokens of a text instead, which fails for every fine-tune that changed a
// token.
#include <array>

#include "core/error.h"
#include "data/vocabulary_source.h"

namespace retort {
namespace {

constexpr const char* gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
#define CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define REST R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define CASE_REST R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define WORD R"([^\r\n\p{L}\p{N}]?)"
constexpr const char* llama3 = CONTRACTIONS "|" WORD R"(\p{L}+|\p{N}{1,3})" REST;
constexpr const char* qwen2 = CONTRACTIONS "|" WORD R"(\p{L}+|\p{N})" REST;
constexpr const char* tekken = WORD UPPER "*" LOWER "+|" WORD UPPER "+" LOWER R"(*|\p{N})" CASE_REST;
constexpr const char* gpt4o =
    WORD UPPER "*" LOWER "+" CONTRACTIONS "?|" WORD UPPER "+" LOWER "*" CONTRACTIONS R"(?|\p{N}{1,3})" CASE_REST;

struct Known {
  const char* pre;
  std::vector<std::string> steps;
  bool ignore_merges;  ///< what llama.cpp does under this name
};

const std::vector<Known>& known() {
  static const std::vector<Known> list = {
      {"gpt-2", {gpt2}, false},   {"smollm", {"digit", gpt2}, false}, {"llama-bpe", {llama3}, true},
      {"dbrx", {llama3}, false},  {"qwen2", {qwen2}, false},          {"tekken", {tekken}, true},
      {"gpt-4o", {gpt4o}, false},
  };
  return list;
}

/// The rules in order, as strings that can be compared.
void collect(const Json& step, std::vector<std::string>& steps, const std::string& where) {
  std::string type = json_get<std::string>(step, "type", where);
  if (type == "Sequence") {
    for (const Json& inner : json_get<Json>(step, "pretokenizers", where)) collect(inner, steps, where);
  } else if (type == "ByteLevel") {
    if (json_get<bool>(step, "add_prefix_space", where, true))
      fail(Exit::bad_input, "{}: ByteLevel with add_prefix_space is not supported: llama.cpp adds no space", where);
    if (json_get<bool>(step, "use_regex", where, true)) steps.push_back(gpt2);
  } else if (type == "Digits") {
    steps.push_back(json_get<bool>(step, "individual_digits", where, false) ? "digit" : "digits");
  } else if (type == "Split") {
    Json pattern = json_get<Json>(step, "pattern", where);
    std::string behavior = json_get<std::string>(step, "behavior", where);
    bool invert = json_get<bool>(step, "invert", where, false);
    // "Removed" and inverted keeps the matches and drops what lies between them; these patterns leave nothing between.
    bool plain = (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert);
    std::string regex = pattern.contains("Regex") ? json_get<std::string>(pattern, "Regex", where) : pattern.dump();
    if (regex == R"(\p{N})" && plain) regex = "digit";
    steps.push_back(plain ? regex : fmt::format("{} ({}{})", regex, behavior, invert ? ", inverted" : ""));
  } else {
    steps.push_back(step.dump());
  }
}

std::string known_names() {
  std::string names;
  for (const Known& candidate : known()) names += std::string(names.empty() ? "" : ", ") + candidate.pre;
  return names;
}

}  // namespace

PreTokenizer pre_tokenizer_named(const std::string& pre, const std::string& where) {
  for (const Known& candidate : known()) {
    if (candidate.pre != pre) continue;
    Json steps = Json::array();
    bool splits = false;  // by gpt2's own rules, which ByteLevel holds
    for (const std::string& rule : candidate.steps) {
      if (rule == "digit")
        steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
      else if (rule == gpt2)
        splits = true;
      else
        steps.push_back(
            {{"type", "Split"}, {"pattern", {{"Regex", rule}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
    steps.push_back(
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", splits}});
    return {steps.size() == 1 ? steps[0] : Json{{"type", "Sequence"}, {"pretokenizers", steps}},
            candidate.ignore_merges};
  }
  fail(Exit::bad_input,
       "{}: tokenizer.ggml.pre is \"{}\", whose rules are not known here; known are {}. Start from the model's Hugging "
       "Face folder, whose tokenizer is copied",
       where, pre, known_names());
}

std::string find_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges, const std::string& where) {
  std::vector<std::string> steps;
  collect(pre_tokenizer, steps, where + ": pre_tokenizer");
  const Known* found = nullptr;
  for (const Known& candidate : known())
    if (candidate.steps == steps && (!found || candidate.ignore_merges == ignore_merges)) found = &candidate;
  if (found) return found->pre;
  std::string rules;
  for (const std::string& step : steps) rules += (rules.empty() ? "" : " then ") + step;
  fail(
      Exit::bad_input,
      "{}: unknown pre-tokenizer: {}; known are the rules of {}. A file with other rules would be tokenized wrongly by "
      "llama.cpp; use the model's GGUF file, which names its pre-tokenizer",
      where, rules.empty() ? "none" : rules, known_names());
}

}  // namespace retort
