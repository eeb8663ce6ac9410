#include "data/tokenizer.h"

#include <llama.h>

#include <cctype>
#include <limits>
#include <set>

#include "core/error.h"
#include "data/sentencepiece.h"
#include "data/vocabulary.h"
#include "models/gguf.h"
#include "models/llama_runtime.h"

namespace retort {
namespace {

/// Pre-tokenizers that llama.cpp splits by hand-written code; for the others it runs std::regex.
bool splits_by_hand(const std::string& pre) {
  static const std::set<std::string> names = {"default",   "gpt-2",    "smollm",  "starcoder", "refact", "command-r",
                                              "llama-bpe", "llama-v3", "llama3",  "dbrx",      "qwen2",  "smaug-bpe",
                                              "falcon3",   "olmo",     "pixtral", "phi-2"};
  return names.contains(pre);
}

/// std::regex recurses once a character of a match: about 30,000 letters in a row end the process on a stack of 8 MiB,
/// here and in the server. No text that people write comes near this limit.
void check_runs(const std::string& text, const std::string& path) {
  constexpr int64_t limit = 8192;
  int64_t run = 0, last = -1;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    int64_t kind = byte >= 0x80 || std::isalpha(byte) ? 0 : std::isspace(byte) ? 1 : std::isdigit(byte) ? 2 : 3;
    run = kind == last ? run + 1 : 1;
    last = kind;
    if (run > limit && kind != 2)
      fail(Exit::bad_input,
           "{}: llama.cpp cannot tokenize a run of more than {} {} with this vocabulary's pre-tokenizer", path, limit,
           kind == 0   ? "letters"
           : kind == 1 ? "white-space characters"
                       : "punctuation characters");
  }
}

class LlamaTokenizer : public Tokenizer {
 public:
  explicit LlamaTokenizer(const std::filesystem::path& path) : path_(path.string()) {
    auto file = GgufFile::open(path);
    check_vocabulary(file->context(), path_);
    llama_model_params parameters = llama_model_default_params();
    parameters.vocab_only = true;
    model_ = load_llama(path, parameters);
    vocab_ = llama_model_get_vocab(model_.get());
    if ((adds_bos() && bos() < 0) || (adds_eos() && eos() < 0))
      fail(Exit::bad_input, "{}: the vocabulary adds a {} token to every text and names none", path_,
           bos() < 0 ? "BOS" : "EOS");
    hash_ = hash_vocabulary(file->context());
    limits_runs_ = llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_BPE &&
                   !splits_by_hand(file->text("tokenizer.ggml.pre", std::string("default")));
    if (llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_SPM) find_sentinel();
  }

  std::vector<int32_t> encode(const std::string& text, bool special, bool bos) const override {
    if (text.size() > std::numeric_limits<int32_t>::max() / 2)
      fail(Exit::bad_input, "a text of {} bytes is too long to tokenize at once", text.size());
    if (limits_runs_) check_runs(text, path_);
    std::vector<int32_t> ids(text.size() / 3 + 16);
    try {
      int32_t count = tokenize(text, special, bos, ids);
      if (count < 0) {
        ids.resize(-static_cast<int64_t>(count));
        count = tokenize(text, special, bos, ids);
      }
      ids.resize(count);
    } catch (const std::exception& error) {
      fail(Exit::bad_input, "{}: the vocabulary cannot express the text \"{}\": {}", path_, text.substr(0, 60),
           error.what());
    }
    return ids;
  }

  std::vector<int32_t> encode_after(const std::string& text) const override {
    if (sentinel_.empty()) return encode(text, true, false);
    std::vector<int32_t> ids = encode(sentinel_ + text, true, false);
    ids.erase(ids.begin(), ids.begin() + sentinel_tokens_);
    return ids;
  }

  std::string decode(std::span<const int32_t> ids, bool special) const override {
    std::string text(ids.size() * 8 + 64, '\0');
    auto detokenize = [&] {
      return llama_detokenize(vocab_, ids.data(), static_cast<int32_t>(ids.size()), text.data(),
                              static_cast<int32_t>(text.size()), /*remove_special=*/false, special);
    };
    for (int32_t id : ids) check(id);
    int32_t count = detokenize();
    if (count < 0) {
      text.resize(-static_cast<int64_t>(count));
      count = detokenize();
    }
    text.resize(count);
    return text;
  }

  std::string piece(int32_t id) const override {
    check(id);
    std::string text(64, '\0');
    int32_t count = llama_token_to_piece(vocab_, id, text.data(), static_cast<int32_t>(text.size()), 0, true);
    if (count < 0) {
      text.resize(-static_cast<int64_t>(count));
      count = llama_token_to_piece(vocab_, id, text.data(), static_cast<int32_t>(text.size()), 0, true);
    }
    text.resize(count);
    return text;
  }

  int64_t size() const override { return llama_vocab_n_tokens(vocab_); }
  int32_t bos() const override { return llama_vocab_bos(vocab_); }
  int32_t eos() const override { return llama_vocab_eos(vocab_); }
  bool adds_bos() const override { return llama_vocab_get_add_bos(vocab_); }
  bool adds_eos() const override { return llama_vocab_get_add_eos(vocab_); }
  bool ends_generation(int32_t id) const override { return llama_vocab_is_eog(vocab_, id); }
  std::string hash() const override { return hash_; }
  std::string chat_template() const override {
    const char* text = llama_model_chat_template(model_.get(), nullptr);
    return text ? text : "";
  }

 private:
  void check(int32_t id) const {
    if (id < 0 || id >= size()) fail(Exit::bad_input, "{}: token {} is not in the vocabulary of {}", path_, id, size());
  }

  int32_t tokenize(const std::string& text, bool special, bool bos, std::vector<int32_t>& ids) const {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                          static_cast<int32_t>(ids.size()), bos, special);
  }

  /// A character that becomes a byte token and is in no piece: put in front of a text it takes the leading space on
  /// itself and merges with nothing, so that what comes after it is tokenized as the middle of a text.
  void find_sentinel() {
    // Large vocabularies have pieces for control characters too; none has one for a code point of private use.
    for (const std::string& sentinel : std::vector<std::string>{"\x01", "\x02", "\x03", "\n", "\xF4\x8F\xBF\xBD"}) {
      bool in_piece = false;
      for (int32_t id = 0; id < size() && !in_piece; ++id)
        in_piece = !(llama_vocab_get_attr(vocab_, id) & LLAMA_TOKEN_ATTR_BYTE) &&
                   std::string(llama_vocab_get_text(vocab_, id)).find(sentinel) != std::string::npos;
      if (in_piece) continue;
      std::vector<int32_t> ids = encode(sentinel, true, false);
      if (ids.empty() || !(llama_vocab_get_attr(vocab_, ids.back()) & LLAMA_TOKEN_ATTR_BYTE)) continue;
      sentinel_ = sentinel;
      sentinel_tokens_ = static_cast<int64_t>(ids.size());
      return;
    }
    fail(Exit::bad_input, "{}: a SentencePiece vocabulary without byte tokens is not supported", path_);
  }

  std::string path_, hash_, sentinel_;
  int64_t sentinel_tokens_ = 0;
  bool limits_runs_ = false;
  std::shared_ptr<llama_model> model_;
  const llama_vocab* vocab_ = nullptr;
};

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::open(const std::filesystem::path& model) {
  if (!std::filesystem::is_directory(model)) return std::make_unique<LlamaTokenizer>(model);
  auto tokenizer = std::make_unique<LlamaTokenizer>(vocabulary_file(model));
  if (std::filesystem::path sentencepiece = model / "tokenizer.model"; std::filesystem::exists(sentencepiece))
    check_sentencepiece(sentencepiece, *tokenizer);
  return tokenizer;
}

}  // namespace retort
