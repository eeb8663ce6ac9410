// Llama 1-3, SmolLM2, Mistral 7B, Mistral Nemo: RMSNorm, rotary attention with grouped keys, SwiGLU.
// Sources: transformers' configuration_llama.py and configuration_mistral.py (defaults), modeling_rope_utils.py
// (llama3), llama.cpp's conversion/llama.py (keys, row order, rope_freqs).
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "models/family.h"

namespace retort {
namespace {

/// Throws unless the sizes fit together and are of this world: products of two of them stay below 2^62.
void check(const ModelConfig& c, const std::string& where) {
  const auto within = [&](const char* what, int64_t value, int64_t limit) {
    if (value < 1 || value > limit) fail(Exit::bad_input, "{}: {} is {}, allowed: 1 to {}", where, what, value, limit);
  };
  constexpr int64_t million = 1'000'000;
  within("the vocabulary's size", c.vocab, 16 * million);
  within("the hidden size", c.dim, million);
  within("the number of layers", c.layers, 10'000);
  within("the number of attention heads", c.heads, 10'000);
  within("the number of key and value heads", c.kv_heads, c.heads);
  within("the size of a head", c.head_dim, 10'000);
  within("the size of the feed-forward layer", c.ffn, 16 * million);
  within("the context length", c.context, int64_t{1} << 40);
  if (c.heads % c.kv_heads != 0)
    fail(Exit::bad_input, "{}: {} attention heads cannot share {} key and value heads", where, c.heads, c.kv_heads);
  if (c.head_dim % 2 != 0)
    fail(Exit::bad_input, "{}: the size of a head is {}, rotary embeddings need an even one", where, c.head_dim);
  if (c.sliding_window < 0) fail(Exit::bad_input, "{}: sliding_window is {}", where, c.sliding_window);
  if (!(c.norm_eps >= 0 && c.norm_eps < 1)) fail(Exit::bad_input, "{}: the norms' epsilon is {}", where, c.norm_eps);
  if (!(c.rope_theta > 0 && std::isfinite(c.rope_theta)))
    fail(Exit::bad_input, "{}: the rotary base is {}, expected a positive number", where, c.rope_theta);
  if (!(c.rope_linear_factor >= 1 && std::isfinite(c.rope_linear_factor)))
    fail(Exit::bad_input, "{}: the rotary scaling factor is {}, expected 1 or more", where, c.rope_linear_factor);
}

/// The divisors that conversion/llama.py writes to rope_freqs.weight, in the same f32 operations.
std::vector<float> llama3_factors(const ModelConfig& c) {
  const Llama3RopeScaling& s = *c.llama3;
  const at::Tensor exponent = at::arange(0, c.head_dim, 2, at::kFloat).div(c.head_dim);
  const at::Tensor frequency = at::pow(c.rope_theta, exponent).reciprocal();
  const auto original = static_cast<float>(s.original_context);
  const auto low = static_cast<float>(s.low_freq_factor), high = static_cast<float>(s.high_freq_factor);
  const auto factor = static_cast<float>(s.factor);
  std::vector<float> divisors;
  for (int64_t i = 0; i < frequency.numel(); ++i) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency.const_data_ptr<float>()[i];
    if (wavelength < original / high) {
      divisors.push_back(1);
    } else if (wavelength > original / low) {
      divisors.push_back(factor);
    } else {
      const float smooth = (original / wavelength - low) / (high - low);
      divisors.push_back(1 / ((1 - smooth) / factor + smooth));
    }
  }
  return divisors;
}

/// transformers 5 writes rope_parameters with the base in it, earlier versions rope_theta and rope_scaling.
void read_rope(const Json& config, const std::string& where, ModelConfig& c) {
  c.rope_theta = json_get<double>(config, "rope_theta", where, 1e4);
  const bool has_new = config.contains("rope_parameters") && !config["rope_parameters"].is_null();
  const bool has_old = config.contains("rope_scaling") && !config["rope_scaling"].is_null();
  if (has_new && has_old && config["rope_parameters"] != config["rope_scaling"])
    fail(Exit::bad_input, "{}: rope_parameters and rope_scaling contradict each other; keep one", where);
  if (!has_new && !has_old) return;
  const Json& rope = config[has_new ? "rope_parameters" : "rope_scaling"];
  const std::string place = where + (has_new ? ": rope_parameters" : ": rope_scaling");
  c.rope_theta = json_get<double>(rope, "rope_theta", place, c.rope_theta);
  if (json_get<double>(rope, "partial_rotary_factor", place, 1) != 1)
    fail(Exit::bad_input, "{}: partial_rotary_factor is {}, allowed: 1", place, rope["partial_rotary_factor"].dump());
  const auto type =
      json_get<std::string>(rope, "rope_type", place, json_get<std::string>(rope, "type", place, "default"));
  if (type == "linear") {
    c.rope_linear_factor = json_get<double>(rope, "factor", place);
  } else if (type == "llama3") {
    c.llama3 = {json_get<double>(rope, "factor", place), json_get<double>(rope, "low_freq_factor", place),
                json_get<double>(rope, "high_freq_factor", place),
                json_get<int64_t>(rope, "original_max_position_embeddings", place)};
    if (!(c.llama3->factor >= 1 && c.llama3->low_freq_factor > 0 &&
          c.llama3->high_freq_factor > c.llama3->low_freq_factor && c.llama3->original_context > 0))
      fail(Exit::bad_input, "{}: expected factor >= 1 and 0 < low_freq_factor < high_freq_factor, found {}", place,
           rope.dump().substr(0, 200));
  } else if (type != "default") {
    fail(Exit::bad_input, "{}: rope_type \"{}\" is not supported, allowed: default, linear, llama3", place, type);
  }
}

/// Keys of config.json that change the model and that nothing here implements: refused unless neutral.
void refuse_unsupported(const Json& config, const std::string& where, bool mistral) {
  struct Neutral {
    const char* key;
    Json value;
  };
  const std::vector<Neutral> all = {
      {"hidden_act", "silu"},
      {"pretraining_tp", 1},
      {"partial_rotary_factor", 1.0},
      {"attention_dropout", 0.0},
      {"num_local_experts", nullptr},
      {"quantization_config", nullptr},
      {"attention_multiplier", nullptr},
      {"layer_types", nullptr},
  };
  const auto refuse = [&](const char* key, const Json& allowed) {
    fail(Exit::bad_input, "{}: {} is {}, allowed: {}", where, key, config[key].dump().substr(0, 80), allowed.dump());
  };
  for (const Neutral& n : all)
    if (config.contains(n.key) && !config[n.key].is_null() && config[n.key] != n.value) refuse(n.key, n.value);
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (mistral && config.contains(key) && config[key] != false) refuse(key, false);
  if (!mistral && config.contains("sliding_window") && !config["sliding_window"].is_null())
    refuse("sliding_window", nullptr);
  if (config.contains("architectures") && config["architectures"].is_array())
    for (const Json& name : config["architectures"])
      if (!name.is_string() || !name.get<std::string>().ends_with("ForCausalLM"))
        fail(Exit::bad_input, "{}: architectures names {}, expected a causal language model (…ForCausalLM)", where,
             name.dump());
}

ModelConfig from_hf(const Json& config, const std::string& where) {
  const bool mistral = json_get<std::string>(config, "model_type", where) == "mistral";
  refuse_unsupported(config, where, mistral);
  ModelConfig c;
  c.family = "llama";
  c.architecture = "llama";
  c.vocab = json_get<int64_t>(config, "vocab_size", where);
  c.dim = json_get<int64_t>(config, "hidden_size", where);
  c.layers = json_get<int64_t>(config, "num_hidden_layers", where);
  c.heads = json_get<int64_t>(config, "num_attention_heads", where);
  c.ffn = json_get<int64_t>(config, "intermediate_size", where);
  // The defaults below are transformers' own, which a config.json written as a difference leaves out.
  c.kv_heads = json_get<int64_t>(config, "num_key_value_heads", where, mistral ? 8 : c.heads);
  c.context = json_get<int64_t>(config, "max_position_embeddings", where, mistral ? 4096 * 32 : 2048);
  c.norm_eps = json_get<double>(config, "rms_norm_eps", where, 1e-6);
  c.tied = json_get<bool>(config, "tie_word_embeddings", where, false);
  c.attention_bias = c.attention_output_bias = json_get<bool>(config, "attention_bias", where, false);
  c.mlp_bias = json_get<bool>(config, "mlp_bias", where, false);
  if (mistral) {
    const bool given = config.contains("sliding_window");
    c.sliding_window = json_get<int64_t>(config, "sliding_window", where, given ? 0 : 4096);
  }
  c.head_dim = json_get<int64_t>(config, "head_dim", where, 0);
  if (c.head_dim == 0) {
    if (c.heads < 1 || c.dim % c.heads != 0)
      fail(Exit::bad_input, "{}: hidden_size {} is no multiple of num_attention_heads {}, and head_dim is not given",
           where, c.dim, c.heads);
    c.head_dim = c.dim / c.heads;
  }
  read_rope(config, where, c);
  // GGUF keeps them in f32, and transformers computes with them in f32: both readers give the same numbers.
  for (double* value : {&c.norm_eps, &c.rope_theta, &c.rope_linear_factor}) *value = static_cast<float>(*value);
  check(c, where);
  if (c.llama3) c.rope_factors = llama3_factors(c);
  return c;
}

/// A count that GGUF stores once, or once a layer; layers that differ are refused.
int64_t uniform(const GgufFile& file, const std::string& key) {
  const int64_t id = gguf_find_key(file.context(), key.c_str());
  if (id < 0 || gguf_get_kv_type(file.context(), id) != GGUF_TYPE_ARRAY) return file.integer(key);
  const auto values = file.integers(key);
  if (values.empty() || std::any_of(values.begin(), values.end(), [&](int64_t v) { return v != values[0]; }))
    fail(Exit::bad_input, "{}: key \"{}\" differs between layers, which is not supported", file.path().string(), key);
  return values[0];
}

ModelConfig from_gguf(const GgufFile& file) {
  const std::string where = file.path().string();
  const std::string a = file.text("general.architecture") + ".";
  ModelConfig c;
  c.family = "llama";
  c.architecture = "llama";
  c.layers = file.integer(a + "block_count");
  c.dim = file.integer(a + "embedding_length");
  c.ffn = uniform(file, a + "feed_forward_length");
  c.heads = uniform(file, a + "attention.head_count");
  c.kv_heads = file.has(a + "attention.head_count_kv") ? uniform(file, a + "attention.head_count_kv") : c.heads;
  c.context = file.integer(a + "context_length");
  c.norm_eps = file.real(a + "attention.layer_norm_rms_epsilon");
  c.rope_theta = file.real(a + "rope.freq_base", 1e4);
  c.head_dim = file.integer(a + "attention.key_length", c.heads > 0 ? c.dim / c.heads : 0);
  for (const char* key : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t value = file.integer(a + key, c.head_dim); value != c.head_dim)
      fail(Exit::bad_input, "{}: key \"{}{}\" is {}, allowed: the size of a head, {}", where, a, key, value,
           c.head_dim);
  if (const int64_t experts = file.integer(a + "expert_count", 0); experts != 0)
    fail(Exit::bad_input, "{}: a mixture of {} experts is not supported", where, experts);

  const auto scaling = file.text(a + "rope.scaling.type", "linear");
  if (scaling != "linear" && scaling != "none")
    fail(Exit::bad_input, "{}: key \"{}rope.scaling.type\" is \"{}\", allowed: none, linear", where, a, scaling);
  const double factor = file.real(a + "rope.scaling.factor", file.real(a + "rope.scale_linear", 1));
  if (scaling == "linear" && factor != 0) c.rope_linear_factor = factor;  // 0 means none to llama.cpp
  if (file.real(a + "rope.scaling.attn_factor", 1) != 1)
    fail(Exit::bad_input, "{}: key \"{}rope.scaling.attn_factor\" is not supported", where, a);

  const QuantizedTensor* embedding = file.find("token_embd.weight");
  if (!embedding) fail(Exit::bad_input, "{}: tensor token_embd.weight is missing", where);
  c.vocab = embedding->rows();
  if (const int64_t vocab = file.integer(a + "vocab_size", c.vocab); vocab != c.vocab)
    fail(Exit::bad_input, "{}: token_embd.weight has {} rows, but {}vocab_size is {}", where, c.vocab, a, vocab);
  c.tied = file.find("output.weight") == nullptr;
  c.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  c.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  c.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  check(c, where);
  if (const QuantizedTensor* factors = file.find("rope_freqs.weight")) {
    if (factors->elements() != c.head_dim / 2)
      fail(Exit::bad_input, "{}: tensor rope_freqs.weight has {} elements, allowed: {}", where, factors->elements(),
           c.head_dim / 2);
    const at::Tensor values = factors->dequantize();
    const float* data = values.const_data_ptr<float>();
    c.rope_factors.assign(data, data + values.numel());
    for (float value : c.rope_factors)
      if (!(value > 0 && std::isfinite(value)))
        fail(Exit::bad_input, "{}: tensor rope_freqs.weight holds {}, expected positive numbers", where, value);
  }
  return c;
}

std::vector<TensorSpec> tensors(const ModelConfig& c) {
  std::vector<TensorSpec> all;
  all.push_back({"model.embed_tokens.weight", "token_embd.weight", {c.vocab, c.dim}});
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  struct LinearSpec {
    const char *name, *gguf;
    int64_t out, in;
    bool bias;
    int64_t permuted_heads;
  };
  const LinearSpec linears[] = {
      {"self_attn.q_proj", "attn_q", q, c.dim, c.attention_bias, c.heads},
      {"self_attn.k_proj", "attn_k", kv, c.dim, c.attention_bias, c.kv_heads},
      {"self_attn.v_proj", "attn_v", kv, c.dim, c.attention_bias, 0},
      {"self_attn.o_proj", "attn_output", c.dim, q, c.attention_output_bias, 0},
      {"mlp.gate_proj", "ffn_gate", c.ffn, c.dim, c.mlp_bias, 0},
      {"mlp.up_proj", "ffn_up", c.ffn, c.dim, c.mlp_bias, 0},
      {"mlp.down_proj", "ffn_down", c.dim, c.ffn, c.mlp_bias, 0},
  };
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string hf = fmt::format("model.layers.{}.", i), gguf = fmt::format("blk.{}.", i);
    all.push_back({hf + "input_layernorm.weight", gguf + "attn_norm.weight", {c.dim}});
    all.push_back({hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight", {c.dim}});
    for (const LinearSpec& l : linears) {
      all.push_back({hf + l.name + ".weight", gguf + l.gguf + ".weight", {l.out, l.in}, l.permuted_heads});
      if (l.bias) all.push_back({hf + l.name + ".bias", gguf + l.gguf + ".bias", {l.out}, l.permuted_heads});
    }
  }
  all.push_back({"model.norm.weight", "output_norm.weight", {c.dim}});
  if (!c.tied) all.push_back({"lm_head.weight", "output.weight", {c.vocab, c.dim}});
  return all;
}

void write_metadata(const ModelConfig& c, GgufWriter& writer) {
  writer.set_text("general.architecture", "llama");
  writer.set_u32("llama.block_count", c.layers);
  writer.set_u32("llama.context_length", c.context);
  writer.set_u32("llama.embedding_length", c.dim);
  writer.set_u32("llama.feed_forward_length", c.ffn);
  writer.set_u32("llama.attention.head_count", c.heads);
  writer.set_u32("llama.attention.head_count_kv", c.kv_heads);
  writer.set_u32("llama.attention.key_length", c.head_dim);
  writer.set_u32("llama.attention.value_length", c.head_dim);
  writer.set_f32("llama.attention.layer_norm_rms_epsilon", c.norm_eps);
  writer.set_f32("llama.rope.freq_base", c.rope_theta);
  writer.set_u32("llama.rope.dimension_count", c.head_dim);
  writer.set_u32("llama.vocab_size", c.vocab);
  if (c.rope_linear_factor != 1) {
    writer.set_text("llama.rope.scaling.type", "linear");
    writer.set_f32("llama.rope.scaling.factor", c.rope_linear_factor);
  }
}

}  // namespace

extern const Family family_llama{
    .name = "llama",
    .model_types = {"llama", "mistral"},
    .architectures = {"llama"},
    .from_hf = from_hf,
    .from_gguf = from_gguf,
    .tensors = tensors,
    .write_metadata = write_metadata,
};

}  // namespace retort
