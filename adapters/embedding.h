// What can be trained of the embedding, and modules that are trained whole.
#pragma once

#include <memory>

#include "adapters/attach.h"
#include "models/embedding.h"

namespace retort {

/// Type and place of what is trained.
struct ParameterPlace {
  at::ScalarType type;
  at::Device device;
};

/// LoRA: row t + scale * B A[:, t]; A zero, B normal, as PEFT starts it.
std::shared_ptr<EmbeddingAdapter> embedding_lora(const Embedding& embedding, const Target& target, ParameterPlace place,
                                                 uint64_t seed);

/// Some tokens' rows, trained whole (PEFT's trainable_token_indices). Error(usage) for a token that is not in the
/// vocabulary, or twice in the list.
std::shared_ptr<EmbeddingAdapter> embedding_rows(const Embedding& embedding, const std::vector<int64_t>& tokens,
                                                 ParameterPlace place);
/// For the head that is the same matrix: the same rows. `rows` is what embedding_rows gave.
std::shared_ptr<LinearAdapter> tied_head_rows(const EmbeddingAdapter& rows);

/// The whole matrix (PEFT's modules_to_save); a tied head stays as it is.
std::shared_ptr<EmbeddingAdapter> whole_embedding(const Embedding& embedding, ParameterPlace place);
/// Weight and, where there is one, bias.
std::shared_ptr<LinearAdapter> whole_linear(const Linear& linear, ParameterPlace place);

}  // namespace retort
