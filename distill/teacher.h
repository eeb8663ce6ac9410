// A teacher: any model that gives logits for tokens. One file a kind in distill/teachers/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace retort {

/// What a cache remembers of the model that filled it.
struct TeacherIdentity {
  std::string hash;            ///< SHA-256 over its tensors (and its adapter's)
  std::string quantization;    ///< "Q4_K", "F32", "nf4_dq"
  std::string tokenizer_hash;  ///< Tokenizer::hash()
  std::string engine;          ///< "llama.cpp", "LibTorch"
};

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual const TeacherIdentity& identity() const = 0;
  /// Width of its logits; may be more than its tokenizer's size.
  virtual int64_t vocab() const = 0;
  /// Logits f32 [wanted[i].size(), vocab()] on the host after each of the ascending positions `wanted[i]` of document
  /// i, for all documents in their order, as many in one batch as the engine likes. Error(bad_input) naming document
  /// and position when a logit is NaN.
  virtual void logits(const std::vector<std::vector<int32_t>>& documents,
                      const std::vector<std::vector<int64_t>>& wanted,
                      const std::function<void(size_t document, const at::Tensor& logits)>& each) = 0;
};

}  // namespace retort
