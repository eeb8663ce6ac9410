#include "export/types.h"

#include <ggml.h>
#include <llama.h>

#include <algorithm>

#include "core/error.h"
#include "core/schema.h"

namespace retort {

const std::vector<GgufType>& gguf_types() {
  // needs_imatrix follows tensor_requires_imatrix in llama.cpp's src/llama-quant.cpp: a mix needs one as soon as one of
  // its tensors does.
  static const std::vector<GgufType> types = {
      {"F32", LLAMA_FTYPE_ALL_F32, GGML_TYPE_F32, false},
      {"BF16", LLAMA_FTYPE_MOSTLY_BF16, GGML_TYPE_BF16, false},
      {"F16", LLAMA_FTYPE_MOSTLY_F16, GGML_TYPE_F16, false},
      {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0, GGML_TYPE_Q8_0, false},
      {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K, GGML_TYPE_Q6_K, false},
      {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1, GGML_TYPE_Q5_1, false},
      {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M, GGML_TYPE_Q5_K, false},
      {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S, GGML_TYPE_Q5_K, false},
      {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0, GGML_TYPE_Q5_0, false},
      {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1, GGML_TYPE_Q4_1, false},
      {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M, GGML_TYPE_Q4_K, false},
      {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S, GGML_TYPE_Q4_K, false},
      {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL, GGML_TYPE_IQ4_NL, false},
      {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0, GGML_TYPE_Q4_0, false},
      {"MXFP4_MOE", LLAMA_FTYPE_MOSTLY_MXFP4_MOE, GGML_TYPE_MXFP4, false},
      {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS, GGML_TYPE_IQ4_XS, false},
      {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L, GGML_TYPE_Q3_K, false},
      {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M, GGML_TYPE_Q3_K, false},
      {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S, GGML_TYPE_Q3_K, false},
      {"IQ3_M", LLAMA_FTYPE_MOSTLY_IQ3_M, GGML_TYPE_IQ3_S, false},
      {"IQ3_S", LLAMA_FTYPE_MOSTLY_IQ3_S, GGML_TYPE_IQ3_S, false},
      {"IQ3_XS", LLAMA_FTYPE_MOSTLY_IQ3_XS, GGML_TYPE_IQ3_S, true},
      {"IQ3_XXS", LLAMA_FTYPE_MOSTLY_IQ3_XXS, GGML_TYPE_IQ3_XXS, true},
      {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K, GGML_TYPE_Q2_K, false},
      {"Q2_K_S", LLAMA_FTYPE_MOSTLY_Q2_K_S, GGML_TYPE_Q2_K, true},
      {"IQ2_M", LLAMA_FTYPE_MOSTLY_IQ2_M, GGML_TYPE_IQ2_S, true},
      {"IQ2_S", LLAMA_FTYPE_MOSTLY_IQ2_S, GGML_TYPE_IQ2_XS, true},
      {"IQ2_XS", LLAMA_FTYPE_MOSTLY_IQ2_XS, GGML_TYPE_IQ2_XS, true},
      {"Q2_0", LLAMA_FTYPE_MOSTLY_Q2_0, GGML_TYPE_Q2_0, false},
      {"IQ2_XXS", LLAMA_FTYPE_MOSTLY_IQ2_XXS, GGML_TYPE_IQ2_XXS, true},
      {"TQ2_0", LLAMA_FTYPE_MOSTLY_TQ2_0, GGML_TYPE_TQ2_0, false},
      {"IQ1_M", LLAMA_FTYPE_MOSTLY_IQ1_M, GGML_TYPE_IQ1_M, true},
      {"TQ1_0", LLAMA_FTYPE_MOSTLY_TQ1_0, GGML_TYPE_TQ1_0, false},
      {"IQ1_S", LLAMA_FTYPE_MOSTLY_IQ1_S, GGML_TYPE_IQ1_S, true},
      {"Q1_0", LLAMA_FTYPE_MOSTLY_Q1_0, GGML_TYPE_Q1_0, false},
  };
  return types;
}

const GgufType& gguf_type(const std::string& name) {
  std::string wanted = name;
  std::transform(wanted.begin(), wanted.end(), wanted.begin(), [](unsigned char c) { return std::toupper(c); });
  for (const char* alias : {"Q3_K", "Q4_K", "Q5_K"})
    if (wanted == alias) wanted += "_M";
  std::vector<std::string> names;
  for (const GgufType& type : gguf_types()) {
    if (wanted == type.name) return type;
    names.emplace_back(type.name);
  }
  fail(Exit::usage, "export type: {}", not_among(name, names));
}

double block_bits(const GgufType& type) {
  const auto block = static_cast<ggml_type>(type.block);
  return 8.0 * static_cast<double>(ggml_type_size(block)) / static_cast<double>(ggml_blck_size(block));
}

void check_imatrix_given(const GgufType& type, bool given) {
  if (type.needs_imatrix && !given)
    fail(Exit::usage,
         "export type {}: llama.cpp makes it only with an importance matrix; add imatrix: train, or name a file",
         type.name);
}

std::string list_gguf_types() {
  std::string text = fmt::format("{:<10} {:>11}\n", "type", "bits/weight");
  for (const GgufType& type : gguf_types())
    text += fmt::format("{:<10} {:>11.4g}{}\n", type.name, block_bits(type),
                        type.needs_imatrix ? "  needs an importance matrix" : "");
  return text;
}

}  // namespace retort
