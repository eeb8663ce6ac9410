#include "data/vocabulary.h"

#include <gguf.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "core/error.h"
#include "core/hash.h"

namespace retort {
namespace {

constexpr const char* tokens_key = "tokenizer.ggml.tokens";
constexpr const char* merges_key = "tokenizer.ggml.merges";
constexpr const char* add_eos_key = "tokenizer.ggml.add_eos_token";

/// The key's index, -1 when it is missing; Error when it is no array of `type`.
int64_t find_array(const gguf_context* metadata, const char* key, gguf_type type, const std::string& where) {
  int64_t index = gguf_find_key(metadata, key);
  if (index >= 0 &&
      (gguf_get_kv_type(metadata, index) != GGUF_TYPE_ARRAY || gguf_get_arr_type(metadata, index) != type))
    fail(Exit::bad_input, "{}: {} is no array of {}", where, key, gguf_type_name(type));
  return index;
}

std::string find_string(const gguf_context* metadata, const char* key, const std::string& where) {
  int64_t index = gguf_find_key(metadata, key);
  if (index < 0) return "";
  if (gguf_get_kv_type(metadata, index) != GGUF_TYPE_STRING) fail(Exit::bad_input, "{}: {} is no string", where, key);
  return gguf_get_val_str(metadata, index);
}

void check_merges(const gguf_context* metadata, const std::unordered_set<std::string_view>& tokens,
                  const std::string& where) {
  int64_t merges = find_array(metadata, merges_key, GGUF_TYPE_STRING, where);
  if (merges < 0) fail(Exit::bad_input, "{}: a BPE vocabulary without {}", where, merges_key);
  size_t count = gguf_get_arr_n(metadata, merges);
  for (size_t i = 0; i < count; ++i) {
    std::string merge = gguf_get_arr_str(metadata, merges, i);
    size_t space = merge.find(' ', 1);
    if (space == std::string::npos || space + 1 == merge.size())
      fail(Exit::bad_input, "{}: {}[{}] is \"{}\", expected two tokens with a space between them", where, merges_key, i,
           merge);
    std::string joined = merge.substr(0, space) + merge.substr(space + 1);
    if (!tokens.contains(joined))
      fail(Exit::bad_input,
           "{}: {}[{}] \"{}\" gives \"{}\", which is no token of the vocabulary; merges and tokens are of different "
           "tokenizers",
           where, merges_key, i, merge, joined);
  }
}

}  // namespace

void check_vocabulary(const gguf_context* metadata, const std::string& where) {
  std::string model = find_string(metadata, "tokenizer.ggml.model", where);
  if (model.empty()) fail(Exit::bad_input, "{}: no vocabulary: the key tokenizer.ggml.model is missing", where);
  if (model != "gpt2" && model != "llama")
    fail(Exit::bad_input, "{}: tokenizer.ggml.model is \"{}\"; supported: gpt2 (byte-level BPE), llama (SentencePiece)",
         where, model);
  find_string(metadata, "tokenizer.ggml.pre", where);
  int64_t index = find_array(metadata, tokens_key, GGUF_TYPE_STRING, where);
  if (index < 0) fail(Exit::bad_input, "{}: the key {} is missing", where, tokens_key);
  size_t count = gguf_get_arr_n(metadata, index);
  if (count == 0 || count > size_t{1} << 24) fail(Exit::bad_input, "{}: {} has {} entries", where, tokens_key, count);

  std::unordered_set<std::string_view> tokens;
  tokens.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    std::string_view token = gguf_get_arr_str(metadata, index, i);
    if (token.empty()) continue;  // llama.cpp names it [EMPTY_<i>]
    if (!tokens.insert(token).second)
      fail(Exit::bad_input, "{}: {}[{}] \"{}\" occurs twice; tokens must be unique", where, tokens_key, i, token);
  }
  for (const auto& [key, type] : {std::pair{"tokenizer.ggml.token_type", GGUF_TYPE_INT32},
                                  std::pair{"tokenizer.ggml.scores", GGUF_TYPE_FLOAT32}}) {
    int64_t array = find_array(metadata, key, type, where);
    if (array >= 0 && gguf_get_arr_n(metadata, array) != count)
      fail(Exit::bad_input, "{}: {} has {} entries, {} has {}", where, key, gguf_get_arr_n(metadata, array), tokens_key,
           count);
    if (array < 0 && (model == "llama" || type == GGUF_TYPE_INT32))
      fail(Exit::bad_input, "{}: the key {} is missing", where, key);
  }
  if (model == "gpt2") check_merges(metadata, tokens, where);
  // llama.cpp fails on the first character that is no token when a SentencePiece vocabulary lacks its bytes.
  for (int byte = 0; byte < 256 && model == "llama"; ++byte)
    if (std::string token = fmt::format("<0x{:02X}>", byte); !tokens.contains(token))
      fail(Exit::bad_input, "{}: the SentencePiece vocabulary has no token {}; some texts could not be expressed",
           where, token);
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask"}) {
    std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    int64_t id = gguf_find_key(metadata, key.c_str());
    if (id < 0) continue;
    if (gguf_get_kv_type(metadata, id) != GGUF_TYPE_UINT32) fail(Exit::bad_input, "{}: {} is no u32", where, key);
    if (gguf_get_val_u32(metadata, id) >= count)
      fail(Exit::bad_input, "{}: {} is {}, the vocabulary has {} tokens", where, key, gguf_get_val_u32(metadata, id),
           count);
  }
}

std::string hash_vocabulary(const gguf_context* metadata) {
  Sha256 hash;
  auto add = [&](std::string_view part) {
    hash.update(std::to_string(part.size()) + ":");
    hash.update(part);
  };
  for (const std::string_view key :
       {"tokenizer.ggml.model", "tokenizer.ggml.pre", tokens_key, "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
        merges_key, "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token",
        add_eos_key, "tokenizer.ggml.add_space_prefix"}) {
    int64_t index = gguf_find_key(metadata, key.data());
    if (index < 0) continue;
    gguf_type type = gguf_get_kv_type(metadata, index);
    // No vocabulary adds an EOS unless it says so: a file that says no is the same as one that says nothing.
    if (key == add_eos_key && type == GGUF_TYPE_BOOL && !gguf_get_val_bool(metadata, index)) continue;
    add(key);
    if (type == GGUF_TYPE_STRING) {
      add(gguf_get_val_str(metadata, index));
    } else if (type == GGUF_TYPE_ARRAY && gguf_get_arr_type(metadata, index) == GGUF_TYPE_STRING) {
      for (size_t i = 0; i < gguf_get_arr_n(metadata, index); ++i) add(gguf_get_arr_str(metadata, index, i));
    } else if (type == GGUF_TYPE_ARRAY) {  // check_vocabulary lets only 4-byte types through
      add({static_cast<const char*>(gguf_get_arr_data(metadata, index)), 4 * gguf_get_arr_n(metadata, index)});
    } else {
      size_t bytes = type == GGUF_TYPE_BOOL ? 1 : 4;
      add({static_cast<const char*>(gguf_get_val_data(metadata, index)), bytes});
    }
  }
  return hash.hex();
}

}  // namespace retort
