// scale * B A on a frozen weight, with every way to start it: what LoRA and DoRA share.
//
// PiSSA and OLoRA start from a part B0 A0 of the weight and take that part out of it, W' = W - scale * B0 A0. The base
// may be quantized and is never written to, so B0 A0 stays beside it and is subtracted in every product; saved as one
// plain LoRA of twice the rank, [B, -B0] [A; A0], which every reader of LoRA files understands.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <vector>

#include "adapters/attach.h"
#include "adapters/parts.h"

namespace retort {

/// The keys of AdapterOptions that the low-rank kinds read.
inline constexpr std::array low_rank_keys = {"r",
                                             "lora_alpha",
                                             "lora_dropout",
                                             "use_rslora",
                                             "layers_to_transform",
                                             "layers_pattern",
                                             "rank_pattern",
                                             "alpha_pattern",
                                             "init_lora_weights",
                                             "lora_bias",
                                             "trainable_token_indices",
                                             "dtype"};

/// Parameters of A, B and, where it is trained, the bias.
int64_t low_rank_parameters(const Linear& linear, const AdapterOptions& options, const Target& target);

void low_rank_to_peft(const AdapterOptions& options, Json& config);
void low_rank_from_peft(const Json& config, const std::string& where, AdapterOptions& options);
/// The options of the plain adapter that the file holds: of twice the rank when a part was taken out of the base.
AdapterOptions low_rank_saved(AdapterOptions options);

class LowRankUpdate {
 public:
  explicit LowRankUpdate(const AdapterPlace& place);

  /// y = x W'ᵀ; x [T, in], y [T, out].
  void base_forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y) const;
  /// dx = dy W', or dx += with `add` (dx undefined: not wanted).
  void base_backward(const Linear& layer, const at::Tensor& dy, const at::Tensor& dx, bool add) const;
  /// y += scale * x Aᵀ Bᵀ; returns u = x Aᵀ [T, r], which backward needs. x after dropout.
  at::Tensor add(const at::Tensor& x, const at::Tensor& y) const;
  /// Gradients of A and B; returns du [T, r], of which du A is x's.
  at::Tensor add_backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& u);
  /// dx += d loss / dx of add's part, through the dropout when there was one (dx undefined: not wanted).
  void input_backward(const at::Tensor& x, const at::Tensor& du, const at::Tensor& dx) const;

  int64_t rank() const { return a_.size(0); }
  /// The whole change of W, [B, -B0] scaled and [A; A0], in the parameters' type and on their device.
  LowRank product() const;
  LowRank low_rank() const;  ///< product(), f32 on the CPU
  at::Tensor merged(const at::Tensor& weight) const;
  std::vector<Parameter> parameters() const;
  std::vector<Parameter> saved() const;  ///< LinearAdapter::saved
  /// The bias that the trained bias of B makes of the layer's; undefined when both are.
  at::Tensor bias(const at::Tensor& base) const;

  Dropout dropout;

 private:
  std::string name_;
  double scale_;
  at::Tensor a_, b_;              ///< [r, in], [out, r]
  at::Tensor start_a_, start_b_;  ///< A0 and B0; undefined when the base keeps its weight
  at::Tensor bias_;               ///< of B, [out]; undefined without lora_bias
};

}  // namespace retort
