// A checkpoint whose linear layers are quantized while they are read.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "models/checkpoint.h"
#include "quant/bnb.h"

namespace retort {

/// `base` with the matrices of its blocks in one of bitsandbytes' formats. Each is made when it is first asked for and
/// then kept, so that there is never more than the quantized form and one tensor. The embedding, the head, norms and
/// biases stay as they are, as in transformers; so do matrices that come in bitsandbytes' formats. hash() is the
/// base's: the same bytes, read in another way.
std::unique_ptr<Checkpoint> quantize_while_reading(std::unique_ptr<Checkpoint> base, const BnbOptions& options);

/// The model at `path` as training saw it: in the format that bnb_options(form) names, or as it lies there when `form`
/// is empty.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path, const std::string& form);

/// Whether quantize_while_reading would quantize it.
bool is_block_matrix(const QuantizedTensor& tensor);

}  // namespace retort
