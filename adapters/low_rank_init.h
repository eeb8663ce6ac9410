// What A and B of a low-rank adapter start from: PEFT's init_lora_weights.
#pragma once

#include <ATen/core/Tensor.h>

#include "adapters/attach.h"

namespace retort {

struct LowRankStart {
  at::Tensor a, b;               ///< [r, in], [out, r], on the CPU
  bool taken_from_base = false;  ///< the base's weight is to be reduced by scale * b a
};

/// Numbers are drawn on the CPU in f32, so that every device and type starts from the same ones. Error(usage) for LoftQ
/// without the weights that the base had before it was quantized, or when no product of rank r exists.
LowRankStart low_rank_start(const AdapterPlace& place);

}  // namespace retort
