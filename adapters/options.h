// What an adapter is and where it goes, under PEFT's own field names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"

namespace retort {

class Yaml;
template <typename Options>
class Schema;

/// A choice of modules as PEFT writes it: a list of names, one regular expression, or "all-linear".
struct ModuleChoice {
  std::string expression;          ///< a regular expression for whole names, or "all-linear"; empty: `names` choose
  std::vector<std::string> names;  ///< a module is chosen when its name equals one or ends with "." + one
  bool empty() const { return expression.empty() && names.empty(); }
  bool all_linear() const;
};

/// PEFT's init_lora_weights: what A and B start from.
struct LoraInit {
  enum Kind {
    kaiming,   ///< `true`: A kaiming-uniform, B zero
    gaussian,  ///< A normal with deviation 1 / r, B zero
    pissa,     ///< the weight's principal directions (https://arxiv.org/abs/2404.02948); pissa_niter_N: randomized
    olora,     ///< its QR decomposition (https://arxiv.org/abs/2406.01775)
    loftq,     ///< the principal directions of what quantization lost (https://arxiv.org/abs/2310.08659)
  };
  Kind kind = kaiming;
  int64_t iterations = 0;  ///< of the randomized decomposition; 0: the exact one
  bool from_weight() const { return kind == pissa || kind == olora || kind == loftq; }
  /// Whether the adapter starts with a part of the weight that it takes out of the base.
  bool takes_from_base() const { return kind == pissa || kind == olora; }
  std::string name() const;  ///< as PEFT writes it
};

struct AdapterOptions {
  std::string kind = "lora";  ///< a file in adapters/kinds/
  int64_t r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  bool use_rslora = false;  ///< scale by alpha / sqrt(r) instead of alpha / r
  ModuleChoice target_modules{.expression = "all-linear", .names = {}};
  ModuleChoice exclude_modules;
  std::vector<int64_t> layers_to_transform;  ///< empty: all
  std::vector<std::string> layers_pattern;   ///< names of the list of layers; empty: any
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  LoraInit init_lora_weights;
  bool lora_bias = false;                                                      ///< B has a trained bias
  ModuleChoice feedforward_modules{.expression = "", .names = {"down_proj"}};  ///< IA3: scaled at the input
  int64_t projection_prng_key = 0;                                             ///< VeRA: seed of the shared projections
  double d_initial = 0.1;                                                      ///< VeRA: what its vector d starts from
  std::string dtype = "f32";  ///< of the parameters: f32, or bf16, which halves them and their gradients
  std::string bias = "none";
  std::vector<std::string> modules_to_save;      ///< modules trained whole, beside the adapter
  std::vector<int64_t> trainable_token_indices;  ///< tokens whose embeddings are trained whole
};

void from_yaml(const Yaml& node, ModuleChoice& choice);
Json json_schema_of(ModuleChoice*);
Json json_of(const ModuleChoice& choice);  ///< as PEFT writes it: null, string or list
void from_yaml(const Yaml& node, LoraInit& init);
Json json_schema_of(LoraInit*);
Json json_of(const LoraInit& init);
const Schema<AdapterOptions>& schema_of(AdapterOptions*);

/// Errors that need more than one field, or regular expressions: Error(usage) naming key, what was found, what to do.
void check_options(const AdapterOptions& options);

}  // namespace retort
