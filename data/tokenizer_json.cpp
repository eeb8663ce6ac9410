#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "data/vocabulary_source.h"

namespace retort {
namespace {

constexpr const char* lower_one_eighth = "\xe2\x96\x81";  // U+2581, SentencePiece's space

bool contains_step(const Json& node, const std::string& type) {
  if (!node.is_structured()) return false;
  if (node.is_object() && node.contains("type") && node["type"] == type) return true;
  return std::any_of(node.begin(), node.end(), [&](const Json& inner) { return contains_step(inner, type); });
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

/// "left right"; a space inside a part is written as byte-level BPE writes it, U+0120.
std::string merge_text(const Json& merge, const std::string& where) {
  if (merge.is_string()) return merge.get<std::string>();
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string())
    fail(Exit::bad_input, "{}: model.merges: expected \"left right\" or [\"left\", \"right\"], found {}", where,
         merge.dump().substr(0, 80));
  return replace_all(merge[0].get<std::string>(), " ", "\xc4\xa0") + " " +
         replace_all(merge[1].get<std::string>(), " ", "\xc4\xa0");
}

/// The normalizer that a byte-level vocabulary may have: none, or NFC, which llama.cpp leaves out for such models too.
void check_normalizer(const Json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return;
  std::string type = json_get<std::string>(normalizer, "type", where);
  if (type == "NFC") return;
  if (type != "Sequence")
    fail(Exit::bad_input, "{}: normalizer {} is not supported: llama.cpp normalizes nothing", where, type);
  for (const Json& inner : json_get<Json>(normalizer, "normalizers", where)) check_normalizer(inner, where);
}

bool prepends_space(const Json& json, const std::string& where) {
  if (contains_step(json_get<Json>(json, "normalizer", where, Json()), "Prepend")) return true;
  Json steps = json_get<Json>(json, "pre_tokenizer", where, Json());
  if (steps.is_object() && steps.contains("pretokenizers")) steps = steps["pretokenizers"];
  if (!steps.is_array()) steps = Json::array({steps});
  for (const Json& step : steps) {
    if (!contains_step(step, "Metaspace")) continue;
    if (step.contains("prepend_scheme")) return step["prepend_scheme"] != "never";
    return json_get<bool>(step, "add_prefix_space", where, true);
  }
  return false;
}

void read_added_tokens(const Json& json, VocabularySource& source, const std::string& where) {
  for (const Json& added : json_get<Json>(json, "added_tokens", where, Json::array())) {
    std::string text = json_get<std::string>(added, "content", where + ": added_tokens");
    int64_t id = json_get<int64_t>(added, "id", where + ": added_tokens");
    bool special = json_get<bool>(added, "special", where + ": added_tokens", false) || looks_special(text);
    bool unknown = id >= 0 && id < static_cast<int64_t>(source.types.size()) && source.types[id] == token_unknown;
    TokenType type = unknown ? token_unknown : special ? token_control : token_user_defined;
    // llama.cpp compares user-defined tokens with the text before spaces are escaped.
    source.set(id, type == token_user_defined ? replace_all(text, lower_one_eighth, " ") : text, type, -1000, where);
  }
}

/// What the post-processor puts around a text.
void read_post_processor(const Json& processor, VocabularySource& source, const std::string& where) {
  if (processor.is_null()) return;
  std::string type = json_get<std::string>(processor, "type", where);
  if (type == "Sequence")
    for (const Json& inner : json_get<Json>(processor, "processors", where)) read_post_processor(inner, source, where);
  if (type == "ByteLevel") source.has_template = true;
  if (type != "TemplateProcessing") return;
  source.has_template = true;
  bool before = true;
  for (const Json& part : json_get<Json>(processor, "single", where)) {
    if (part.contains("Sequence")) before = false;
    if (!part.contains("SpecialToken")) continue;
    std::string& side = before ? source.first : source.last;
    if (!side.empty())
      fail(Exit::bad_input, "{}: several special tokens on one side of a text are not supported", where);
    side = json_get<std::string>(part["SpecialToken"], "id", where);
  }
}

}  // namespace

void VocabularySource::set(int64_t id, const std::string& text, TokenType type, float score, const std::string& where) {
  constexpr int64_t limit = int64_t{1} << 24;
  if (id < 0 || id >= limit)
    fail(Exit::bad_input, "{}: token \"{}\" has the id {}, allowed: 0 to {}", where, text, id, limit - 1);
  if (text.find('\0') != std::string::npos) fail(Exit::bad_input, "{}: token {} holds a NUL character", where, id);
  for (int64_t hole = static_cast<int64_t>(tokens.size()); hole <= id; ++hole) {
    tokens.push_back(fmt::format("[PAD{}]", hole));
    types.push_back(token_unused);
    scores.push_back(-1000);
  }
  if (types[id] != token_unused && tokens[id] != text && replace_all(tokens[id], lower_one_eighth, " ") != text)
    fail(Exit::bad_input, "{}: token {} is \"{}\" and \"{}\"", where, id, tokens[id], text);
  tokens[id] = text;
  types[id] = type;
  scores[id] = score;
}

bool looks_special(const std::string& token) {
  auto wrapped = [&](const char* begin, const char* end) { return token.starts_with(begin) && token.ends_with(end); };
  return token == "<pad>" || token == "<mask>" || token == "<2mass>" || token == "[@BOS@]" || wrapped("<|", "|>") ||
         wrapped("<\xef\xbd\x9c", "\xef\xbd\x9c>") || wrapped("<unused", ">");
}

VocabularySource read_tokenizer_json(const std::filesystem::path& path) {
  const std::string where = path.string();
  Json json = read_json(path);
  Json model = json_get<Json>(json, "model", where);
  std::string type = json_get<std::string>(model, "type", where + ": model", "BPE");
  if (type != "BPE") fail(Exit::bad_input, "{}: model.type is {}; supported: BPE", where, type);
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!json_get<std::string>(model, affix, where + ": model", "").empty())
      fail(Exit::bad_input, "{}: model.{} is not supported", where, affix);
  Json pre_tokenizer = json_get<Json>(json, "pre_tokenizer", where, Json());
  bool byte_level = contains_step(pre_tokenizer, "ByteLevel");

  VocabularySource source;
  source.model = byte_level ? "gpt2" : "llama";
  for (const Json& merge : json_get<Json>(model, "merges", where + ": model"))
    source.merges.push_back(merge_text(merge, where));
  if (byte_level) {
    check_normalizer(json_get<Json>(json, "normalizer", where, Json()), where);
    source.pre =
        find_pre_tokenizer(pre_tokenizer, json_get<bool>(model, "ignore_merges", where + ": model", false), where);
  } else {
    if (!json_get<bool>(model, "byte_fallback", where + ": model", false))
      fail(Exit::bad_input,
           "{}: neither byte-level BPE (a ByteLevel pre-tokenizer) nor SentencePiece BPE with byte_fallback", where);
    source.pre = "default";
    source.space_prefix = prepends_space(json, where);
  }

  // llama.cpp merges a SentencePiece vocabulary by the merged token's score; the order of merges is that score's order.
  std::unordered_map<std::string, float> score;
  for (size_t i = 0; i < source.merges.size() && !byte_level; ++i) {
    size_t space = source.merges[i].find(' ', 1);
    if (space == std::string::npos) fail(Exit::bad_input, "{}: model.merges[{}] is \"{}\"", where, i, source.merges[i]);
    score.try_emplace(source.merges[i].substr(0, space) + source.merges[i].substr(space + 1), -static_cast<float>(i));
  }
  std::string unknown = json_get<std::string>(model, "unk_token", where + ": model", "");
  const Json vocab = json_get<Json>(model, "vocab", where + ": model");
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_integer()) fail(Exit::bad_input, "{}: model.vocab: \"{}\" has the id {}", where, text, id.dump());
    bool byte = !byte_level && text.size() == 6 && text.starts_with("<0x") && text.ends_with(">");
    TokenType kind = byte ? token_byte : !byte_level && text == unknown ? token_unknown : token_normal;
    auto merged = score.find(text);
    source.set(id.get<int64_t>(), text, kind, merged == score.end() ? -1e6f : merged->second, where);
  }
  read_added_tokens(json, source, where);
  read_post_processor(json_get<Json>(json, "post_processor", where, Json()), source, where + ": post_processor");
  if (!byte_level) source.merges.clear();
  return source;
}

}  // namespace retort
