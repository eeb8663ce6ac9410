// tokenizer.json and tokenizer_config.json out of a vocabulary as GGUF stores it.
#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "data/gguf_vocabulary.h"
#include "data/vocabulary_source.h"

namespace retort {
namespace {

constexpr const char* lower_one_eighth = "\xe2\x96\x81";  // U+2581, SentencePiece's space

Json step(const char* type, Json fields) {
  Json all = {{"type", type}};
  all.update(fields);
  return all;
}

/// The token's text with its id, in the order of ids. A hole ([PAD<n>], unused) is no token here; reading fills it.
Json vocab_json(const GgufVocabulary& v) {
  Json::object_t vocab;
  for (size_t id = 0; id < v.tokens.size(); ++id)
    if (v.types[id] != token_unused || v.tokens[id] != fmt::format("[PAD{}]", id))
      vocab.push_back({v.tokens[id], id});  // the map's own insertion looks through all keys
  return vocab;
}

Json merges_json(const GgufVocabulary& v) {
  Json merges = Json::array();
  for (const std::string& merge : v.merges) {
    const size_t space = merge.find(' ', 1);
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return merges;
}

/// SentencePiece's merges: every two tokens whose text is a token, in the order of that token's score, as transformers
/// converts such models.
Json merges_of_scores(const GgufVocabulary& v) {
  std::unordered_map<std::string, size_t> ids;
  for (size_t id = 0; id < v.tokens.size(); ++id)
    if (v.types[id] == token_normal) ids.emplace(v.tokens[id], id);
  std::vector<size_t> order(v.tokens.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return v.scores[a] > v.scores[b]; });
  Json merges = Json::array();
  for (const size_t id : order) {
    const std::string& text = v.tokens[id];
    if (v.types[id] != token_normal) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if ((text[cut] & 0xC0) == 0x80) continue;  // inside a character
      std::string left = text.substr(0, cut), right = text.substr(cut);
      if (ids.contains(left) && ids.contains(right)) merges.push_back({std::move(left), std::move(right)});
    }
  }
  return merges;
}

Json added_tokens(const GgufVocabulary& v) {
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const int32_t type = v.types[id];
    if (type != token_control && type != token_user_defined && type != token_unknown) continue;
    added.push_back({{"id", id},
                     {"content", v.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != token_user_defined}});
  }
  return added;
}

/// What is put around a text.
Json post_processor(const GgufVocabulary& v) {
  Json special = Json::object(), single = Json::array();
  const auto put = [&](bool adds, int64_t id) {
    if (!adds) return;
    const std::string& text = v.tokens[static_cast<size_t>(id)];
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    special[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  put(v.adds_bos, v.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  put(v.adds_eos, v.eos);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return step("TemplateProcessing", {{"single", single}, {"pair", pair}, {"special_tokens", special}});
}

Json bpe(Json unknown, bool byte_fallback, bool ignore_merges, Json vocab, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", byte_fallback},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

Json tokenizer_json(const GgufVocabulary& v, const std::string& where) {
  Json json = {{"version", "1.0"},
               {"truncation", nullptr},
               {"padding", nullptr},
               {"added_tokens", added_tokens(v)},
               {"normalizer", nullptr},
               {"pre_tokenizer", nullptr},
               {"post_processor", post_processor(v)}};
  if (v.model == "gpt2") {
    const PreTokenizer pre = pre_tokenizer_named(v.pre, where);
    json["pre_tokenizer"] = pre.json;
    json["decoder"] = step("ByteLevel", {{"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}});
    json["model"] = bpe(nullptr, false, pre.ignore_merges, vocab_json(v), merges_json(v));
    return json;
  }
  const auto replace = [](const char* from, const char* to) {
    return step("Replace", {{"pattern", {{"String", from}}}, {"content", to}});
  };
  Json normalizers = Json::array(), decoders = Json::array();
  if (v.space_prefix) normalizers.push_back(step("Prepend", {{"prepend", lower_one_eighth}}));
  normalizers.push_back(replace(" ", lower_one_eighth));
  decoders.push_back(replace(lower_one_eighth, " "));
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (v.space_prefix) decoders.push_back(step("Strip", {{"content", " "}, {"start", 1}, {"stop", 0}}));
  json["normalizer"] = step("Sequence", {{"normalizers", normalizers}});
  json["decoder"] = step("Sequence", {{"decoders", decoders}});
  const Json unknown = v.unknown < 0 ? Json() : Json(v.tokens[static_cast<size_t>(v.unknown)]);
  json["model"] = bpe(unknown, true, false, vocab_json(v), merges_of_scores(v));
  return json;
}

Json tokenizer_config(const GgufVocabulary& v) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", v.adds_bos},
                 {"add_eos_token", v.adds_eos}};
  for (const auto& [key, id] :
       {std::pair{"bos_token", v.bos}, {"eos_token", v.eos}, {"unk_token", v.unknown}, {"pad_token", v.padding}})
    if (id >= 0) config[key] = v.tokens[static_cast<size_t>(id)];
  if (!v.chat_template.empty()) config["chat_template"] = v.chat_template;
  return config;
}

}  // namespace

void write_tokenizer_files(const GgufVocabulary& vocabulary, const std::filesystem::path& folder,
                           const std::string& where) {
  write_json(folder / "tokenizer.json", tokenizer_json(vocabulary, where));
  write_json(folder / "tokenizer_config.json", tokenizer_config(vocabulary));
}

}  // namespace retort
