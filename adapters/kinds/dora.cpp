// DoRA (https://arxiv.org/abs/2402.09353): the rows of V = W + scale * B A brought to trained lengths m.
//
//   forward   z = x Vᵀ,  y = g * z  with g = m / |V|, |V| the rows' 2-norms, taken as constants (paper, section 4.3)
//   backward  dz = g * dy, from there as LoRA;  dm += sum over tokens of dy * z / |V|
//
// |V|² is |W|² + 2 scale * W Aᵀ B + scale² * B A Aᵀ Bᵀ, a row at a time: V is never made.
// With dropout PEFT drops z's input, but not x in the base's own product: y = x Wᵀ + g * z - drop(x) Wᵀ.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "adapters/attach.h"
#include "adapters/low_rank.h"

namespace retort {
namespace {

class Dora final : public LinearAdapter {
 public:
  explicit Dora(const AdapterPlace& place) : update_(place), name_(place.linear.name) {
    const at::NoGradGuard no_grad;
    const at::Tensor weight = place.linear.weight();
    computed_ = weight.scalar_type();
    squares_ = weight.to(at::kDouble).square().sum(1).to(place.parameter);
    magnitude_ = lengths(place.linear).requires_grad_(true);
  }

  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept) override {
    const at::NoGradGuard no_grad;
    const bool dropping = update_.dropout.begin(training);
    const at::Tensor input = update_.dropout(x), lengths = this->lengths(layer);
    const at::Tensor z = at::empty({x.size(0), layer.out}, x.options());
    update_.base_forward(layer, input, z);
    at::Tensor out = y;
    if (dropping) {
      update_.base_forward(layer, x, y);
      out.sub_(z);
    }
    const at::Tensor u = update_.add(input, z);
    if (dropping)
      out.addcmul_(z, gain(lengths, x));
    else
      at::mul_out(out, z, gain(lengths, x));
    kept = {u, z, lengths};
  }

  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    const at::Tensor &u = kept[0], &z = kept[1], &lengths = kept[2];
    accumulate(magnitude_, (dy * z).sum(0).to(lengths.scalar_type()).div_(lengths));
    const at::Tensor dz = dy * gain(lengths, x);
    const at::Tensor du = update_.add_backward(update_.dropout(x), dz, u);
    if (!dx.defined()) return;
    if (update_.dropout.dropping()) {
      update_.base_backward(layer, dy, dx, add);
      const at::Tensor through = at::empty_like(dx);
      update_.base_backward(layer, dz - dy, through, false);
      dx.addcmul_(through, update_.dropout.mask(x));
    } else {
      update_.base_backward(layer, dz, dx, add);
    }
    update_.input_backward(x, du, dx);
  }

  int64_t kept_of_a_token() const override { return update_.rank() + magnitude_.size(0); }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor v = update_.merged(weight);
    return v.mul_(magnitude_.to(weight.options()).div(at::linalg_vector_norm(v, 2, 1)).unsqueeze(1));
  }

  std::vector<Parameter> parameters() const override { return with_magnitude(update_.parameters()); }
  std::vector<Parameter> saved() const override { return with_magnitude(update_.saved()); }

  void set_micro_step(uint64_t micro_step) override { update_.dropout.set_micro_step(micro_step); }

 private:
  std::vector<Parameter> with_magnitude(std::vector<Parameter> all) const {
    all.push_back({name_ + ".lora_magnitude_vector", magnitude_});
    return all;
  }

  /// |V|, [out], of the parameters' type.
  at::Tensor lengths(const Linear& layer) const {
    const LowRank change = update_.product();  // V = W + b a
    const at::Tensor wa = at::empty({change.a.size(0), layer.out}, change.a.options().dtype(computed_));
    base_forward(layer, change.a.to(computed_), wa);
    const at::Tensor cross = wa.t().to(change.b.scalar_type()).mul_(change.b).sum(1);
    const at::Tensor own = at::mm(change.b, at::mm(change.a, change.a.t())).mul_(change.b).sum(1);
    return (squares_ + 2 * cross + own).clamp_min_(0).sqrt_();
  }

  at::Tensor gain(const at::Tensor& lengths, const at::Tensor& like) const {
    return (magnitude_ / lengths).to(like.scalar_type());
  }

  LowRankUpdate update_;
  std::string name_;
  at::ScalarType computed_;  ///< the model's type
  at::Tensor squares_;       ///< |W|², [out]
  at::Tensor magnitude_;     ///< m, [out]
};

}  // namespace

extern const AdapterKind adapter_dora{
    .name = "dora",
    .summary = "LoRA with the rows' lengths trained apart: m * (W + s B A) / |W + s B A|",
    .peft_type = "LORA",
    .keys = low_rank_keys,
    .make = [](const AdapterPlace& place) -> std::unique_ptr<LinearAdapter> { return std::make_unique<Dora>(place); },
    .parameters = [](const Linear& linear, const AdapterOptions& options,
                     const Target& target) { return low_rank_parameters(linear, options, target) + linear.out; },
    .gguf_refusal = [](const AdapterOptions&) -> std::string {
      return "llama.cpp's adapters are products B A, which a DoRA's rescaled rows are not";
    },
    .to_peft = low_rank_to_peft,
    .from_peft = low_rank_from_peft,
    .product_on_each = true,
    .saved = low_rank_saved,
};

}  // namespace retort
