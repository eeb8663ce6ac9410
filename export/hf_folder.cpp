#include "export/hf_folder.h"

#include <ATen/ATen.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "adapters/merge.h"
#include "core/error.h"
#include "core/files.h"
#include "data/sentencepiece.h"
#include "data/tokenizer.h"
#include "data/vocabulary_source.h"
#include "models/family.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

using Merged = std::map<std::string, std::function<at::Tensor()>>;

/// The rotary settings whose divisors a GGUF file holds. Llama 3.1 and 3.2 differ in one factor; others are not known
/// here.
Json rope_parameters(const ModelConfig& c, const Json& rest, const std::string& where) {
  if (c.rope_factors.empty()) {
    if (c.rope_linear_factor == 1) return {{"rope_type", "default"}, {"rope_theta", c.rope_theta}};
    return {{"rope_type", "linear"}, {"rope_theta", c.rope_theta}, {"factor", c.rope_linear_factor}};
  }
  for (const double factor : {8.0, 32.0}) {
    const Json rope = {{"rope_type", "llama3"},   {"rope_theta", c.rope_theta},
                       {"factor", factor},        {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
    Json config = rest;
    config["rope_parameters"] = rope;
    const std::vector<float> made = family_of(c).from_hf(config, where).rope_factors;
    const auto near = [](float a, float b) { return std::abs(a - b) <= 1e-5F * b; };
    if (std::equal(made.begin(), made.end(), c.rope_factors.begin(), c.rope_factors.end(), near)) return rope;
  }
  fail(Exit::usage,
       "{}: its rotary factors cannot be written to config.json (known are those of Llama 3.1 and 3.2); start from the "
       "Hugging Face folder that the file was made of",
       where);
}

Json config_of_gguf(const Checkpoint& base, const ModelConfig& c) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"vocab_size", c.vocab},
                 {"hidden_size", c.dim},
                 {"intermediate_size", c.ffn},
                 {"num_hidden_layers", c.layers},
                 {"num_attention_heads", c.heads},
                 {"num_key_value_heads", c.kv_heads},
                 {"head_dim", c.head_dim},
                 {"max_position_embeddings", c.context},
                 {"rms_norm_eps", c.norm_eps},
                 {"hidden_act", "silu"},
                 {"attention_bias", c.attention_bias},
                 {"mlp_bias", c.mlp_bias},
                 {"tie_word_embeddings", c.tied},
                 {"dtype", "float32"}};
  config["rope_parameters"] = rope_parameters(c, config, base.path().string());
  for (const auto& [name, key] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                  {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                  {"pad_token_id", "tokenizer.ggml.padding_token_id"}})
    if (base.gguf()->has(key)) config[name] = base.gguf()->integer(key);
  return config;
}

/// transformers knows one switch for the biases of q, k, v and o.
ModelConfig in_transformers_words(ModelConfig config) {
  config.attention_bias = config.attention_output_bias = config.attention_bias || config.attention_output_bias;
  return config;
}

/// Tokenizer, chat template, generation defaults: all but the weights and what says where they lie.
bool goes_along(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
  const bool text = extension == ".json" || extension == ".txt" || extension == ".model" || extension == ".jinja";
  return entry.is_regular_file() && text && name != "config.json" && name != "prune.json" &&
         !name.ends_with(".index.json");
}

/// The ids that a renumbered vocabulary gives the special tokens, in config.json or generation_config.json.
void set_token_ids(Json& config, const GgufVocabulary& vocabulary) {
  const auto set = [&](const char* key, int64_t id) {
    config.erase(key);
    if (id >= 0) config[key] = id;
  };
  set("bos_token_id", vocabulary.bos);
  set("pad_token_id", vocabulary.padding);
  set("eos_token_id", vocabulary.eos);
}

Json generation_config(const GgufVocabulary& vocabulary) {
  Json config = Json::object();
  set_token_ids(config, vocabulary);
  if (vocabulary.ends.size() > 1) config["eos_token_id"] = vocabulary.ends;
  return config;
}

at::ScalarType dtype_of(const std::string& type) {
  return type == "BF16" ? at::kBFloat16 : type == "F16" ? at::kHalf : at::kFloat;
}

/// Every tensor of the merged model as it is written.
class Weights {
 public:
  Weights(const Checkpoint& base, CausalLM& model, const std::string& type)
      : base_(base),
        merged_(merged_tensors(base, model)),
        config_(in_transformers_words(merged_config(base.config(), merged_))),
        specs_(family_of(config_).tensors(config_)),
        dtype_(dtype_of(type)) {
    if (merged_.contains("lm_head.bias"))
      fail(Exit::usage,
           "safetensors: transformers has no bias of the head; leave lm_head out of the adapter's modules");
  }

  const ModelConfig& config() const { return config_; }
  const std::vector<TensorSpec>& specs() const { return specs_; }

  at::Tensor make(const TensorSpec& spec) const {
    if (const auto made = merged_.find(spec.name); made != merged_.end()) {
      const at::Tensor weight = made->second();
      if (!at::isfinite(weight).all().item<bool>())
        fail(Exit::bad_input, "{}: the merged weight is not finite; the adapter's numbers are too large", spec.name);
      return weight.to(dtype_).contiguous();
    }
    if (!base_.has(spec.name)) return at::zeros(spec.shape, dtype_);
    return base_.tensor(spec.name).dequantize(dtype_);
  }

  int64_t bytes(const TensorSpec& spec) const {
    return std::accumulate(spec.shape.begin(), spec.shape.end(), static_cast<int64_t>(c10::elementSize(dtype_)),
                           std::multiplies<>());
  }

 private:
  const Checkpoint& base_;
  Merged merged_;
  ModelConfig config_;
  std::vector<TensorSpec> specs_;
  at::ScalarType dtype_;
};

/// One file, or several with an index as transformers names them; one file's tensors are in memory at a time.
void write_weights(const fs::path& folder, const Weights& weights, int64_t shard_bytes) {
  std::vector<std::vector<const TensorSpec*>> shards(1);
  int64_t bytes = 0, total = 0;
  for (const TensorSpec& spec : weights.specs()) {
    const int64_t more = weights.bytes(spec);
    if (bytes > 0 && bytes + more > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(&spec);
    bytes += more;
    total += more;
  }
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const TensorSpec* spec : shards[i]) {
      tensors.emplace_back(spec->name, weights.make(*spec));
      map[spec->name] = name;
    }
    write_safetensors(folder / name, tensors);
  }
  if (shards.size() > 1)
    write_json(folder / "model.safetensors.index.json", {{"metadata", {{"total_size", total}}}, {"weight_map", map}});
}

void check_weights(const fs::path& folder, const Weights& weights) {
  const auto made = Checkpoint::open(folder);
  for (const TensorSpec& spec : weights.specs()) {
    const QuantizedTensor stored = made->tensor(spec.name);
    const at::Tensor wanted = weights.make(spec);
    if (stored.bytes().size() != wanted.nbytes() ||
        std::memcmp(stored.bytes().data(), wanted.const_data_ptr(), wanted.nbytes()) != 0)
      fail(Exit::gate_refused, "{}: {} was read back with other bytes than were written", folder.string(), spec.name);
  }
}

void check_tokenizer(const fs::path& folder, const Checkpoint& base, bool same_tokens) {
  const auto before = Tokenizer::open(base.path()), after = Tokenizer::open(folder);
  for (const std::string& text : hard_texts()) {
    const std::vector<int32_t> wanted = before->encode(text, false, true), found = after->encode(text, false, true);
    if (same_tokens ? wanted == found : before->decode(wanted) == after->decode(found)) continue;
    fail(Exit::gate_refused, "{}: the tokenizer that was written gives other {} for {}", folder.string(),
         same_tokens ? "tokens" : "text", Json(text.substr(0, 80)).dump());
  }
}

bool has_tokenizer(const Checkpoint& base) {
  if (base.is_gguf()) return base.gguf()->has("tokenizer.ggml.tokens");
  return fs::exists(base.path() / "tokenizer.json") || fs::exists(base.path() / "tokenizer.model");
}

/// The recipe's template instead of the one that came along.
void replace_chat_template(const fs::path& folder, const std::string& text) {
  fs::remove(folder / "chat_template.jinja");
  const fs::path file = folder / "tokenizer_config.json";
  Json config = fs::exists(file) ? read_json(file) : Json::object();
  config["chat_template"] = text;
  write_json(file, config);
}

}  // namespace

ModelConfig merged_config(ModelConfig config, const Merged& merged) {
  for (const auto& [name, make] : merged) {
    if (name == "lm_head.weight") config.tied = false;
    if (!name.ends_with(".bias")) continue;
    if (name.find(".mlp.") != std::string::npos)
      config.mlp_bias = true;
    else if (name.ends_with(".o_proj.bias"))
      config.attention_output_bias = true;
    else
      config.attention_bias = true;
  }
  return config;
}

Json hf_config(const Checkpoint& base, const ModelConfig& config) {
  if (base.is_gguf()) return config_of_gguf(base, in_transformers_words(config));
  Json json = read_json(base.path() / "config.json");
  json["vocab_size"] = config.vocab;
  json["intermediate_size"] = config.ffn;
  json["num_hidden_layers"] = config.layers;
  json["tie_word_embeddings"] = config.tied;
  const ModelConfig whole = in_transformers_words(config);
  if (whole.attention_bias) json["attention_bias"] = true;
  if (whole.mlp_bias) json["mlp_bias"] = true;
  return json;
}

void write_hf_tokenizer(const fs::path& folder, const Checkpoint& base) {
  if (!base.is_gguf()) {
    for (const auto& entry : fs::directory_iterator(base.path()))
      if (goes_along(entry)) fs::copy_file(entry.path(), folder / entry.path().filename());
  } else if (has_tokenizer(base)) {
    const GgufVocabulary vocabulary = read_vocabulary(base.path());
    write_tokenizer_files(vocabulary, folder, base.path().string());
    write_json(folder / "generation_config.json", generation_config(vocabulary));
  }
}

std::string hf_type(const Checkpoint& base, const std::string& type) {
  if (!type.empty() && type != "F32" && type != "BF16" && type != "F16")
    fail(Exit::usage, "safetensors: type {}; allowed: F32, BF16, F16 (a quantized model: format gguf)", type);
  hf_config(base, base.config());
  if (base.is_gguf() && has_tokenizer(base) && base.gguf()->text("tokenizer.ggml.model") == "gpt2")
    pre_tokenizer_named(base.gguf()->text("tokenizer.ggml.pre", std::string("default")), base.path().string());
  if (!type.empty()) return type;
  const std::string own = base.tensor(base.names().front()).type_name();
  return !base.is_gguf() && (own == "BF16" || own == "F16") ? own : "F32";
}

ExportedFile export_hf_folder(const fs::path& folder, const Checkpoint& base, CausalLM& model,
                              const HfFolderOptions& options) {
  const std::string type = hf_type(base, options.type);
  const Weights weights(base, model, type);
  Json config = hf_config(base, weights.config());
  if (weights.config().attention_bias && config.value("model_type", "") == "mistral")
    fail(Exit::usage, "safetensors: transformers' Mistral has no biases; train the adapter without them");
  config.erase("quantization_config");
  config.erase("torch_dtype");
  config["dtype"] = type == "BF16" ? "bfloat16" : type == "F16" ? "float16" : "float32";
  if (options.vocabulary) set_token_ids(config, *options.vocabulary);

  AtomicFolder atomic(folder);
  const fs::path& out = atomic.temporary();
  write_json(out / "config.json", config);
  if (options.vocabulary) {
    write_tokenizer_files(*options.vocabulary, out, base.path().string());
    write_json(out / "generation_config.json", generation_config(*options.vocabulary));
  } else {
    write_hf_tokenizer(out, base);
  }
  if (!options.chat_template.empty()) replace_chat_template(out, options.chat_template);
  for (const auto& [name, content] : options.with) write_json(out / name, content);
  write_weights(out, weights, options.shard_bytes);
  check_weights(out, weights);
  if (options.vocabulary || has_tokenizer(base)) check_tokenizer(out, base, !options.vocabulary);
  ExportedFile file{.path = folder, .format = "safetensors", .type = type, .bytes = 0, .bits_per_weight = 0};
  for (const auto& entry : fs::directory_iterator(out)) file.bytes += static_cast<int64_t>(entry.file_size());
  file.bits_per_weight = 8.0 * static_cast<double>(c10::elementSize(dtype_of(type)));
  atomic.commit();
  return file;
}

}  // namespace retort
