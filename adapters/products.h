// Adapters as what they add to each weight, apart from any model: what can be combined, compared and converted.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "adapters/peft.h"

namespace retort {

/// The change of one weight, scale * b a.
struct Product {
  at::Tensor a, b;  ///< f32 on the CPU, [r, in] and [out, r]
  double scale = 1;
};

struct ProductAdapter {
  std::string name;                        ///< where it comes from, for messages
  AdapterOptions options;                  ///< of its modules, only what chose them counts
  AdapterOrigin origin;                    ///< empty strings where several adapters disagree
  std::map<std::string, Product> modules;  ///< by the module's name, "model.layers.0.self_attn.q_proj"
};

/// Error(bad_input) when what two adapters add to the module are matrices of different shapes.
void check_same_weight(const std::string& module, const ProductAdapter& first, const ProductAdapter& second);

/// Whether the module is the embedding, whose product is that of the transposed weight: a [r, vocab], b [dim, r].
bool is_embedding(std::string_view module);

/// What the model's adapters add to its weights. Error(usage) naming the module where that is no product alone.
std::map<std::string, Product> products_of(CausalLM& model);

/// The adapter in a PEFT folder. LoRA is read without a base; VeRA, whose projections are shared, asks for `model` with
/// the base. With a model the adapter is checked as load_peft does it (base_hash: the model's) and the model is left
/// without adapters. Error(bad_input) where the adapter is no product alone: DoRA, (IA)³, biases, modules trained
/// whole.
ProductAdapter read_products(const std::filesystem::path& folder, CausalLM* model = nullptr,
                             const std::string& base_hash = "");

/// Writes a plain LoRA: scales are folded into B, and all modules get the largest rank (with zeros), lora_alpha being
/// that rank, so that readers which know neither rsLoRA nor patterns read it right. The folder appears whole or not at
/// all.
void save_products(const std::filesystem::path& folder, const ProductAdapter& adapter);

}  // namespace retort
