// The export gate: the file that ships, read again by llama.cpp, against the model that was trained.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/chat_template.h"
#include "data/example.h"
#include "data/tokenizer.h"
#include "export/imatrix.h"
#include "models/causal_lm.h"
#include "models/checkpoint.h"
#include "models/served.h"

namespace retort {

/// A held-out row.
struct GateRow {
  Chat chat;
  Example example;
};

/// What the file must agree with.
struct GateReference {
  const Checkpoint& base;
  CausalLM& trained;  ///< with its adapters attached
  const Tokenizer& tokenizer;
  const ChatTemplate& chat_template;
  std::time_t now;  ///< the date that chat_template prints
};

/// What ships: a merged GGUF, or a base GGUF served with a GGUF adapter.
struct GateFile {
  std::filesystem::path path;          ///< holds the vocabulary and the template; the base when there is an adapter
  std::filesystem::path adapter = {};  ///< empty: `path` is merged, and its weights are compared too
  std::string type;                    ///< "Q4_K_M": decides the limits
  int threads = 0;                     ///< 0: the cores that this process may use
  const Imatrix* imatrix = nullptr;    ///< that it was made with
};

/// The mean KL divergence decides the others; docs/gate.md has the table and what it rests on.
struct GateLimits {
  double max_kl = 0;              ///< mean over positions, in nats
  double max_kl_p99 = 0;          ///< 99th percentile
  double min_top1 = 0;            ///< share of positions with the same most likely token
  double max_log_perplexity = 0;  ///< |log(perplexity shipped / perplexity trained)|
};

/// `max_kl` and `min_top1` from the recipe, or by the type. Error(usage) for an unknown type.
GateLimits gate_limits(const std::string& type, std::optional<double> max_kl, std::optional<double> min_top1);

/// How far a tensor of one type may be from the merged weight.
struct WeightBounds {
  double relative_error, worst_block;
};

/// A tensor of the file against the merged weight.
struct WeightDifference {
  std::string tensor;         ///< Hugging Face's name
  std::string type;           ///< ggml's, "Q4_K"
  double relative_error = 0;  ///< root mean square of the difference over that of the weight
  double worst_block = 0;     ///< largest difference of one weight over the largest weight of its block
  double unexplained = 0;     ///< the same, but in rows beyond the bound against what quantizing them again gives, if
                              ///< that is nearer
  WeightBounds bounds = {};   ///< on relative_error, and on unexplained
};

struct GateReport {
  bool passed = false;
  std::vector<std::string> reasons;  ///< why not: what, found, allowed
  std::string type;
  GateLimits limits;
  int64_t rows = 0, positions = 0;
  double kl_mean = 0, kl_p99 = 0, top1 = 0, perplexity_trained = 0, perplexity_shipped = 0;
  int64_t texts = 0;  ///< texts that both vocabularies tokenized
  int64_t stops = 0,
          stops_trained = 0;  ///< rows in which the shipped / the trained model ends its turn after the answer
  std::map<std::string, WeightDifference> weights;  ///< by type the largest of each figure, and the tensor that has the
                                                    ///< largest relative error; empty for an adapter
  /// report.json's "gate".
  Json to_json() const;
};

/// Tokens of held-out rows that both models read.
constexpr int64_t kGateTokens = 4096;

/// Compares vocabulary, chat template, weights, then what both models predict on at most `max_tokens` tokens of `rows`.
/// Never throws for a file that is merely wrong: what cannot even be loaded is a reason too. Error(internal) without
/// rows.
GateReport gate(const GateReference& reference, const GateFile& file, std::span<const GateRow> rows,
                std::optional<double> max_kl = {}, std::optional<double> min_top1 = {},
                int64_t max_tokens = kGateTokens);

// The parts, each adding its reasons to the report.

/// Token ids of held-out and hard texts, special tokens, and the rendered chats.
void compare_text(const GateReference& reference, const std::filesystem::path& path, std::span<const GateRow> rows,
                  GateReport& report);
/// Every tensor of the merged file, dequantized, against the weight that merging gives.
void compare_weights(const GateReference& reference, const GateFile& file, GateReport& report);
/// One of them. `merged` is [out, in], or a vector; `columns` are the importance matrix's weights, empty without one.
WeightDifference compare_weight(const QuantizedTensor& stored, const at::Tensor& merged,
                                std::span<const float> columns);
/// KL, top-1, perplexity and the end of the turn.
void compare_predictions(const GateReference& reference, const GateFile& file, std::span<const GateRow> rows,
                         std::optional<double> max_kl, std::optional<double> min_top1, int64_t max_tokens,
                         GateReport& report);

}  // namespace retort
