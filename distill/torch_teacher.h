// Teachers that LibTorch runs: a model of their own, or the student's with its adapters taken off.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distill/teacher.h"
#include "models/causal_lm.h"

namespace retort {

/// The adapters of one model, which can be put on it and taken off; empty: none.
struct AdapterSet {
  std::vector<std::shared_ptr<LinearAdapter>> linears;  ///< in module order
  std::shared_ptr<EmbeddingAdapter> embedding;
};

/// Puts `set` on the model as long as it lives, then what was there before, also when an exception ends its scope.
class LentAdapters {
 public:
  LentAdapters(CausalLM& model, AdapterSet& set) : model_(model), set_(set) { swap(); }
  ~LentAdapters() { swap(); }
  LentAdapters(const LentAdapters&) = delete;
  LentAdapters& operator=(const LentAdapters&) = delete;

 private:
  void swap();
  CausalLM& model_;
  AdapterSet& set_;
};

/// A teacher that asks `model`. With `owned` it keeps it; without, the model is another's (the student's base): every
/// call wears `adapters` and gives the model back as it was.
std::unique_ptr<Teacher> torch_teacher(CausalLM& model, std::unique_ptr<CausalLM> owned, AdapterSet adapters,
                                       TeacherIdentity identity, std::string name);

/// The identity of what LibTorch runs; `adapter` is a PEFT folder or empty.
TeacherIdentity torch_identity(const Checkpoint& checkpoint, const std::filesystem::path& adapter,
                               const Tokenizer& tokenizer);

}  // namespace retort
