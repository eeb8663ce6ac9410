// AdamW with moments of 8 bits in blocks of 256 (https://arxiv.org/abs/2110.02861), as bitsandbytes 0.50 computes it on
// a CPU (backends/cpu/ops.py), to the bit, on every device. Its CUDA kernel differs in rounding, in decaying weights
// after the step instead of before, and in keeping the sign of a first moment that rounds to zero. State has
// bitsandbytes' names and forms; its qmap1 and qmap2 are constants and not stored.
#include <ATen/ATen.h>

#include <cmath>

#include "quant/bnb.h"
#include "trainer/optimizers/adamw.h"

namespace retort {
namespace {

constexpr int64_t kBlock = 256;
constexpr int64_t kSmallest = 4096;           ///< numbers; smaller parameters keep f32
constexpr int64_t kPiece = int64_t{1} << 18;  ///< numbers that are f32 at a time; whole blocks

bool has_codes(const at::Tensor& parameter) { return parameter.numel() >= kSmallest; }

/// What the 256 codes stand for (sorted), and the code nearest to each of 65,536 steps over [-1, 1].
struct Map {
  at::Tensor values, nearest;

  explicit Map(const std::array<float, 256>& map) : values(at::tensor(at::ArrayRef<float>(map))) {
    const at::Tensor middle = (values.narrow(0, 0, 255) + values.narrow(0, 1, 255)).mul_(0.5);
    const at::Tensor steps = at::arange(65536, at::kFloat).mul_(2).div_(65535).sub_(1);
    nearest = at::bucketize(steps, middle, /*out_int32=*/true).to(at::kByte);
  }
  Map to(at::Device device) const {
    Map map = *this;
    map.values = values.to(device);
    map.nearest = nearest.to(device);
    return map;
  }
};

at::Tensor in_blocks(const at::Tensor& x) {
  return at::constant_pad_nd(x, {0, (kBlock - x.numel() % kBlock) % kBlock}).view({-1, kBlock});
}

at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& absmax, const Map& map) {
  const at::Tensor values = map.values.index_select(0, codes.to(at::kInt));
  return in_blocks(values).mul(absmax.unsqueeze(1)).view(-1).narrow(0, 0, codes.numel());
}

void quantize(const at::Tensor& x, const Map& map, const at::Tensor& codes, const at::Tensor& absmax) {
  const at::Tensor blocks = in_blocks(x);
  absmax.copy_(blocks.abs().amax(1));
  const at::Tensor zero = absmax.eq(0).unsqueeze(1);  // blocks of zeros get code 0 and scale 0
  const at::Tensor y = blocks.mul(absmax.unsqueeze(1).reciprocal().masked_fill_(zero, 0)).clamp_(-1, 1);
  // bitsandbytes fuses this product and sum: exact in double, then rounded once
  const at::Tensor exact = y.add_(1).mul_(0.5).to(at::kDouble).mul_(65535).add_(0.5);
  const at::Tensor position = exact.to(at::kFloat).to(at::kInt);
  const at::Tensor found = map.nearest.index_select(0, position.view(-1)).view_as(blocks).masked_fill_(zero, 0);
  codes.copy_(found.view(-1).narrow(0, 0, codes.numel()));
}

struct Step {
  double beta1, beta2, epsilon, correction1, correction2, learning_rate, weight_decay;
};

void update_piece(const Step& step, const at::Tensor& parameter, const at::Tensor& gradient, const at::Tensor& first,
                  const at::Tensor& first_scale, const Map& first_map, const at::Tensor& second,
                  const at::Tensor& second_scale, const Map& second_map) {
  const at::Tensor m = dequantize(first, first_scale, first_map).mul_(step.beta1).add_(gradient, 1 - step.beta1);
  const at::Tensor v =
      dequantize(second, second_scale, second_map).mul_(step.beta2).addcmul_(gradient, gradient, 1 - step.beta2);
  if (step.weight_decay > 0) parameter.mul_(1 - step.learning_rate * step.weight_decay);
  parameter.addcdiv_(m, v.sqrt().div_(step.correction2).add_(step.epsilon), -step.learning_rate / step.correction1);
  quantize(m, first_map, first, first_scale);
  quantize(v, second_map, second, second_scale);
}

}  // namespace

extern const OptimizerKind optimizer_adamw_8bit{
    .name = "adamw_8bit",
    .summary = "AdamW with moments of 8 bits: a quarter of their memory",
    .options = {"adam_beta1", "adam_beta2", "adam_epsilon"},
    .state = [](const at::Tensor& parameter, const TrainOptions&) -> std::vector<StateTensor> {
      if (!has_codes(parameter)) return {{"state1", at::zeros_like(parameter)}, {"state2", at::zeros_like(parameter)}};
      const int64_t blocks = (parameter.numel() + kBlock - 1) / kBlock;
      return {{"state1", at::zeros_like(parameter, at::kByte)},
              {"state2", at::zeros_like(parameter, at::kByte)},
              {"absmax1", at::zeros({blocks}, parameter.options().dtype(at::kFloat))},
              {"absmax2", at::zeros({blocks}, parameter.options().dtype(at::kFloat))}};
    },
    .update =
        [](const UpdateGroup& group, const TrainOptions& options) {
          adamw_update(group.of([](const at::Tensor& parameter) { return !has_codes(parameter); }), options);
          const UpdateGroup large = group.of(has_codes);
          if (large.parameters.empty()) return;
          static const Map signed_map(signed_dynamic_map()), unsigned_map(unsigned_dynamic_map());
          const at::Device device = large.parameters[0].device();
          const Map first_map = signed_map.to(device), second_map = unsigned_map.to(device);
          const auto count = static_cast<double>(group.step);
          Step step{.beta1 = options.adam_beta1.value_or(0.9),
                    .beta2 = options.adam_beta2.value_or(0.999),
                    .epsilon = options.adam_epsilon.value_or(1e-8),
                    .correction1 = 0,
                    .correction2 = 0,
                    .learning_rate = group.learning_rate,
                    .weight_decay = group.weight_decay};
          step.correction1 = 1 - std::pow(step.beta1, count);
          step.correction2 = std::sqrt(1 - std::pow(step.beta2, count));
          for (size_t i = 0; i < large.parameters.size(); ++i) {
            const int64_t numbers = large.parameters[i].numel();
            for (int64_t begin = 0; begin < numbers; begin += kPiece) {
              const int64_t n = std::min(kPiece, numbers - begin);
              const auto piece = [&](const at::Tensor& t) { return t.view(-1).narrow(0, begin, n); };
              const auto scales = [&](const at::Tensor& t) {
                return t.narrow(0, begin / kBlock, (n + kBlock - 1) / kBlock);
              };
              const auto& state = large.state[i];
              update_piece(step, piece(large.parameters[i]), piece(large.gradients[i]), piece(state[0].tensor),
                           scales(state[2].tensor), first_map, piece(state[1].tensor), scales(state[3].tensor),
                           second_map);
            }
          }
        },
};

}  // namespace retort
