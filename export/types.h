// The file types that llama.cpp quantizes to, by llama-quantize's names.
#pragma once

#include <string>
#include <vector>

namespace retort {

struct GgufType {
  const char* name;  ///< "Q4_K_M"
  int ftype;         ///< enum llama_ftype
  int block;         ///< enum ggml_type of most tensors; mixes give some of them another one
  bool needs_imatrix;
};

/// Every one, from large to small. Names that are aliases to llama-quantize (Q4_K for Q4_K_M) are known to gguf_type
/// only.
const std::vector<GgufType>& gguf_types();

/// By name, in any case. Error(usage) with all names and "did you mean" when there is none.
const GgufType& gguf_type(const std::string& name);

/// Bits that the type's main block takes for one weight; what a file comes to is in ExportedFile.
double block_bits(const GgufType& type);

/// Error(usage) when `type` cannot be made without an importance matrix and there is none. Call it before training.
void check_imatrix_given(const GgufType& type, bool given);

/// One line a type: name, bits of its main block, whether it needs an importance matrix.
std::string list_gguf_types();

}  // namespace retort
