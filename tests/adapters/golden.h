// The small Llama of tests/golden/make_peft.py and what PEFT made of it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "core/temporary_folder.h"
#include "models/causal_lm.h"
#include "models/safetensors.h"

namespace retort {

inline const std::filesystem::path golden_folder = RETORT_GOLDEN;

inline std::unique_ptr<Checkpoint> peft_base(const std::string& name = "peft_base") {
  return Checkpoint::open(golden_folder / name);
}

inline std::unique_ptr<CausalLM> peft_model(at::ScalarType dtype = at::kDouble, const std::string& base = "peft_base") {
  const auto checkpoint = peft_base(base);
  return CausalLM::load(*checkpoint, {.base = BaseForm::dense, .dtype = dtype});
}

/// ids and labels of a golden file as one document.
inline Batch golden_batch(const SafetensorsFile& file) {
  const at::Tensor ids = file.tensor("ids").clone();
  return {ids, file.tensor("labels").clone(), {0, ids.size(0)}};
}

/// Largest difference, relative to the largest expected number.
inline double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  EXPECT_EQ(got.sizes(), expected.sizes());
  const at::Tensor wide = expected.to(at::kDouble);
  return ((got.to(at::kDouble) - wide).abs().max() / wide.abs().max()).item<double>();
}

}  // namespace retort
