#include <algorithm>

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "data/vocabulary.h"
#include "data/vocabulary_source.h"
#include "models/gguf.h"

namespace retort {
namespace {

/// A JSON file of the folder, an empty object when it is not there.
Json read_optional(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_json(path) : Json::object();
}

/// The text of tokenizer_config.json's "bos_token" and the like: a string, or an object with "content".
std::string token_text(const Json& config, const std::string& key) {
  auto it = config.find(key);
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object() && it->contains("content") && (*it)["content"].is_string())
    return (*it)["content"].get<std::string>();
  return "";
}

struct Special {
  const char* name;  ///< in tokenizer_config.json and config.json
  const char* key;   ///< in tokenizer.ggml.<key>_token_id
};
constexpr Special specials[] = {{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}};

class SpecialIds {
 public:
  SpecialIds(const VocabularySource& source, const Json& tokenizer_config, const Json& config)
      : source_(source), tokenizer_config_(tokenizer_config), config_(config) {}

  /// tokenizer_config.json's word goes before config.json's, as in llama.cpp's converter; -1: neither names one.
  int64_t id(const std::string& name) const {
    int64_t own = by_text(token_text(tokenizer_config_, name + "_token"));
    // Where transformers rebuilt a tokenizer from a GGUF file, its EOS may come out as the token that begins a turn;
    // a text cannot end with the token that begins it, so config.json is asked when it says otherwise.
    if (name == "eos" && own >= 0 && own == id("bos") && by_config(name) >= 0) return by_config(name);
    return own >= 0 ? own : by_config(name);
  }

  int64_t by_text(const std::string& text) const {
    auto it = std::find(source_.tokens.begin(), source_.tokens.end(), text);
    return text.empty() || it == source_.tokens.end() ? -1 : it - source_.tokens.begin();
  }

 private:
  int64_t by_config(const std::string& name) const {
    auto it = config_.find(name + "_token_id");
    if (it == config_.end()) return -1;
    const Json& value = it->is_array() && !it->empty() ? (*it)[0] : *it;
    if (!value.is_number_integer()) return -1;
    int64_t id = value.get<int64_t>();
    return id >= 0 && id < static_cast<int64_t>(source_.tokens.size()) ? id : -1;
  }

  const VocabularySource& source_;
  const Json& tokenizer_config_;
  const Json& config_;
};

/// What the tokenizer puts before or after every text; the post-processor goes before tokenizer_config.json's flag.
bool adds(const VocabularySource& source, const Json& tokenizer_config, const std::string& flag,
          const std::string& side, int64_t special, const SpecialIds& ids, bool otherwise, const std::string& where) {
  if (!side.empty()) {
    if (ids.by_text(side) != special)
      fail(Exit::bad_input, "{}: the post-processor adds \"{}\", which is not the {} token", where, side, flag);
    return true;
  }
  if (source.has_template) return false;
  return json_get<bool>(tokenizer_config, "add_" + flag + "_token", where, otherwise);
}

/// Token entries of a SentencePiece folder that tokenizer.model does not hold.
void add_tokens(const std::filesystem::path& folder, const Json& tokenizer_config, VocabularySource& source) {
  std::string where = (folder / "added_tokens.json").string();
  const Json added = read_optional(folder / "added_tokens.json");
  for (const auto& [text, id] : added.items()) {
    if (!id.is_number_integer()) fail(Exit::bad_input, "{}: \"{}\" has the id {}", where, text, id.dump());
    if (id.get<int64_t>() >= static_cast<int64_t>(source.tokens.size()))
      source.set(id.get<int64_t>(), text, looks_special(text) ? token_control : token_user_defined, -1000, where);
  }
  where = (folder / "tokenizer_config.json").string() + ": added_tokens_decoder";
  const Json decoder = json_get<Json>(tokenizer_config, "added_tokens_decoder", where, Json::object());
  for (const auto& [key, token] : decoder.items()) {
    int64_t id = -1;
    if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos)
      fail(Exit::bad_input, "{}: \"{}\" is no token id", where, key);
    id = std::stoll(key);
    std::string text = json_get<std::string>(token, "content", where);
    bool special = json_get<bool>(token, "special", where, false) || looks_special(text);
    bool kept = id < static_cast<int64_t>(source.types.size()) && source.types[id] == token_unknown;
    source.set(id, text, kept ? token_unknown : special ? token_control : token_user_defined, -1000, where);
  }
}

void write_templates(const std::filesystem::path& folder, const Json& tokenizer_config, GgufWriter& writer) {
  const std::string key = "tokenizer.chat_template";
  if (std::filesystem::exists(folder / "chat_template.jinja"))
    return writer.set_text(key, read_text(folder / "chat_template.jinja", uint64_t{1} << 20));
  auto it = tokenizer_config.find("chat_template");
  if (it == tokenizer_config.end() || it->is_null()) return;
  if (it->is_string()) return writer.set_text(key, it->get<std::string>());
  std::string where = (folder / "tokenizer_config.json").string() + ": chat_template";
  std::vector<std::string> names;
  for (const Json& named : *it) {
    std::string name = json_get<std::string>(named, "name", where);
    std::string text = json_get<std::string>(named, "template", where);
    if (name == "default") {
      writer.set_text(key, text);
    } else {
      names.push_back(name);
      writer.set_text(key + "." + name, text);
    }
  }
  if (!names.empty()) writer.set_texts("tokenizer.chat_templates", names);
}

constexpr const char* tokenizer_files[] = {"tokenizer.model",     "tokenizer.json", "tokenizer_config.json",
                                           "chat_template.jinja", "config.json",    "added_tokens.json"};

}  // namespace

void write_vocabulary(const std::filesystem::path& folder, GgufWriter& writer) {
  const std::string where = folder.string();
  Json tokenizer_config = read_optional(folder / "tokenizer_config.json"),
       config = read_optional(folder / "config.json");
  VocabularySource source;
  if (std::filesystem::exists(folder / "tokenizer.model")) {
    source = read_sentencepiece(folder / "tokenizer.model");
    add_tokens(folder, tokenizer_config, source);
  } else if (std::filesystem::exists(folder / "tokenizer.json")) {
    source = read_tokenizer_json(folder / "tokenizer.json");
  } else {
    fail(Exit::bad_input, "{}: no tokenizer: neither tokenizer.model nor tokenizer.json is there", where);
  }
  int64_t rows = json_get<int64_t>(config, "vocab_size", where + "/config.json", int64_t(source.tokens.size()));
  if (rows < static_cast<int64_t>(source.tokens.size()))
    fail(Exit::bad_input, "{}: the tokenizer has {} tokens, config.json's vocab_size is {}", where,
         source.tokens.size(), rows);
  if (rows > static_cast<int64_t>(source.tokens.size()))
    source.set(rows - 1, fmt::format("[PAD{}]", rows - 1), token_unused, -1000, where);

  writer.set_text("tokenizer.ggml.model", source.model);
  writer.set_text("tokenizer.ggml.pre", source.pre);
  writer.set_texts("tokenizer.ggml.tokens", source.tokens);
  writer.set_i32s("tokenizer.ggml.token_type", source.types);
  bool sentencepiece = source.model == "llama";
  if (sentencepiece)
    writer.set_f32s("tokenizer.ggml.scores", source.scores);
  else
    writer.set_texts("tokenizer.ggml.merges", source.merges);

  SpecialIds ids(source, tokenizer_config, config);
  for (const Special& special : specials)
    if (int64_t id = ids.id(special.name); id >= 0)
      writer.set_u32(std::string("tokenizer.ggml.") + special.key + "_token_id", id);
  int64_t bos = ids.id("bos"), eos = ids.id("eos");
  if (eos < 0)
    fail(Exit::bad_input, "{}: neither tokenizer_config.json nor config.json names an EOS token of the vocabulary",
         where);
  // Without this key llama.cpp takes token 11 for the BOS of a BPE vocabulary, whatever that is.
  if (bos < 0) writer.set_u32("tokenizer.ggml.bos_token_id", eos);
  bool adds_bos = adds(source, tokenizer_config, "bos", source.first, bos, ids, sentencepiece, where);
  // llama.cpp's converter knows SmolLM2 and Granite by their vocabulary's size: their BOS is the ChatML turn token.
  if (rows == 49152) adds_bos = false;
  writer.set_bool("tokenizer.ggml.add_bos_token", adds_bos && bos >= 0);
  writer.set_bool("tokenizer.ggml.add_eos_token",
                  adds(source, tokenizer_config, "eos", source.last, eos, ids, false, where));
  writer.set_bool("tokenizer.ggml.add_space_prefix", source.space_prefix);
  write_templates(folder, tokenizer_config, writer);
}

std::filesystem::path vocabulary_file(const std::filesystem::path& folder) {
  Sha256 hash;
  hash.update("vocabulary 1\n");
  for (const char* name : tokenizer_files)
    if (std::filesystem::exists(folder / name)) hash.update(fmt::format("{} {}\n", name, sha256_file(folder / name)));
  std::filesystem::path path = cache_folder() / "vocab" / (hash.hex() + ".gguf");
  if (std::filesystem::exists(path)) {
    mark_used(path);
    return path;
  }
  std::filesystem::create_directories(path.parent_path());
  GgufWriter writer;
  writer.set_text("general.architecture", "llama");
  writer.set_text("general.type", "model");
  write_vocabulary(folder, writer);
  writer.begin(path);
  writer.commit();
  return path;
}

}  // namespace retort
