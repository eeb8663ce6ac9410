#include "data/gguf_vocabulary.h"

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "data/tokenizer.h"
#include "data/vocabulary.h"
#include "data/vocabulary_source.h"
#include "models/gguf.h"

namespace retort {
namespace {

using Ids = std::unordered_map<std::string, int64_t>;

Ids ids_of(const GgufVocabulary& vocabulary) {
  Ids ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids.emplace(vocabulary.tokens[id], static_cast<int64_t>(id));
  return ids;
}

/// The two tokens of "left right"; -1 for one that the vocabulary lacks.
std::pair<int64_t, int64_t> parts_of(const std::string& merge, const Ids& ids) {
  const size_t space = merge.find(' ', 1);
  const auto find = [&](const std::string& text) {
    const auto it = ids.find(text);
    return it == ids.end() ? -1 : it->second;
  };
  return {find(merge.substr(0, space)), find(merge.substr(space + 1))};
}

std::string joined(const std::string& merge) {
  const size_t space = merge.find(' ', 1);
  return merge.substr(0, space) + merge.substr(space + 1);
}

bool one_character(const std::string& text) {
  return !text.empty() && std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }) == 1;
}

/// For each token the tokens that it may be merged of. SentencePiece merges any two neighbours whose text is a token.
std::vector<std::vector<int64_t>> parts(const GgufVocabulary& vocabulary) {
  const Ids ids = ids_of(vocabulary);
  std::vector<std::vector<int64_t>> all(vocabulary.tokens.size());
  for (const std::string& merge : vocabulary.merges) {
    const auto [left, right] = parts_of(merge, ids);
    if (left < 0 || right < 0) continue;
    auto& of = all[static_cast<size_t>(ids.at(joined(merge)))];
    of.push_back(left);
    of.push_back(right);
  }
  for (size_t id = 0; id < all.size() && vocabulary.model == "llama"; ++id) {
    const std::string& text = vocabulary.tokens[id];
    if (vocabulary.types[id] != token_normal) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      all[id].push_back(left->second);
      all[id].push_back(right->second);
    }
  }
  return all;
}

}  // namespace

GgufVocabulary read_vocabulary(const std::filesystem::path& model) {
  const std::filesystem::path path = std::filesystem::is_directory(model) ? vocabulary_file(model) : model;
  const auto tokenizer = Tokenizer::open(path);  // checks the keys, and knows llama.cpp's defaults
  const auto file = GgufFile::open(path);
  GgufVocabulary v;
  v.model = file->text("tokenizer.ggml.model");
  v.pre = file->text("tokenizer.ggml.pre", std::string("default"));
  v.tokens = file->texts("tokenizer.ggml.tokens");
  for (size_t id = 0; id < v.tokens.size(); ++id)
    if (v.tokens[id].empty()) v.tokens[id] = fmt::format("[EMPTY_{}]", id);  // llama.cpp's own name for it
  const auto types = file->integers("tokenizer.ggml.token_type");
  v.types.assign(types.begin(), types.end());
  if (v.model == "llama") {
    v.scores = file->reals("tokenizer.ggml.scores");
    v.space_prefix = file->boolean("tokenizer.ggml.add_space_prefix", true);
  } else {
    v.merges = file->texts("tokenizer.ggml.merges");
  }
  const auto special = [&](const char* name) {
    return file->integer(std::string("tokenizer.ggml.") + name + "_token_id", -1);
  };
  v.bos = tokenizer->adds_bos() ? tokenizer->bos() : special("bos");
  v.eos = tokenizer->eos();
  v.unknown = special("unknown");
  v.padding = special("padding");
  if (v.eos >= 0) v.ends.push_back(v.eos);
  for (int32_t id = 0; id < tokenizer->size(); ++id)
    if (id != v.eos && tokenizer->ends_generation(id)) v.ends.push_back(id);
  v.adds_bos = tokenizer->adds_bos();
  v.adds_eos = tokenizer->adds_eos();
  v.chat_template = tokenizer->chat_template();
  return v;
}

std::vector<int64_t> closed_under_merges(const GgufVocabulary& vocabulary, const std::vector<bool>& wanted) {
  std::vector<bool> kept(vocabulary.tokens.size(), false);
  std::vector<int64_t> open;  // kept, with parts that are not looked at yet
  const auto keep = [&](int64_t id) {
    if (id < 0 || kept[static_cast<size_t>(id)]) return;
    kept[static_cast<size_t>(id)] = true;
    open.push_back(id);
  };
  for (size_t id = 0; id < kept.size(); ++id) {
    const int32_t type = vocabulary.types[id];
    const bool special = type == token_control || type == token_user_defined || type == token_unknown;
    const bool byte = type == token_byte || (vocabulary.model == "gpt2" && one_character(vocabulary.tokens[id]));
    if (special || byte || (id < wanted.size() && wanted[id] && type != token_unused)) keep(static_cast<int64_t>(id));
  }
  for (int64_t id : {vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.padding}) keep(id);
  const auto parts_of_token = parts(vocabulary);
  while (!open.empty()) {
    const int64_t id = open.back();
    open.pop_back();
    for (const int64_t part : parts_of_token[static_cast<size_t>(id)]) keep(part);
  }
  std::vector<int64_t> ids;
  for (size_t id = 0; id < kept.size(); ++id)
    if (kept[id]) ids.push_back(static_cast<int64_t>(id));
  return ids;
}

GgufVocabulary cut_vocabulary(const GgufVocabulary& vocabulary, std::span<const int64_t> kept) {
  GgufVocabulary cut = vocabulary;
  cut.tokens.clear();
  cut.types.clear();
  cut.scores.clear();
  std::vector<int64_t> now(vocabulary.tokens.size(), -1);
  for (const int64_t id : kept) {
    const auto at = static_cast<size_t>(id);
    now[at] = static_cast<int64_t>(cut.tokens.size());
    cut.tokens.push_back(vocabulary.tokens[at]);
    cut.types.push_back(vocabulary.types[at]);
    if (!vocabulary.scores.empty()) cut.scores.push_back(vocabulary.scores[at]);
  }
  const Ids ids = ids_of(cut);
  std::erase_if(cut.merges, [&](const std::string& merge) {
    const auto [left, right] = parts_of(merge, ids);
    return left < 0 || right < 0 || !ids.contains(joined(merge));
  });
  for (int64_t* id : {&cut.bos, &cut.eos, &cut.unknown, &cut.padding})
    if (*id >= 0) *id = now[static_cast<size_t>(*id)];
  for (int64_t& id : cut.ends) id = now[static_cast<size_t>(id)];
  std::erase(cut.ends, -1);
  return cut;
}

}  // namespace retort
