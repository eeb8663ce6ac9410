// What a merge did can be undone, and the base never notices its adapters.
#include "adapters/merge.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/peft.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

class Merged : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder(const std::string& name) const { return golden_folder / ("peft_" + name); }
  std::string base(const std::string& name) const { return read_peft_config(folder(name)).origin.base; }
};
INSTANTIATE_TEST_SUITE_P(Golden, Merged,
                         testing::Values("lora", "rslora", "patterns", "head", "bias", "dora", "vera", "ia3"));

/// W again, from the merged weight and what the adapter's file holds; DoRA's rows also need the lengths that they had.
at::Tensor unmerged(const Linear& linear, const at::Tensor& merged, const AdapterOptions& options) {
  if (const LowRank product = linear.adapter->low_rank(); product.b.defined())
    return merged - at::mm(product.b.to(at::kDouble), product.a.to(at::kDouble));
  std::vector<Parameter> parameters = linear.adapter->parameters();
  if (options.kind == "ia3") return merged / parameters[0].tensor.detach();
  const at::Tensor change = at::mm(parameters[1].tensor, parameters[0].tensor).detach() *
                            (options.lora_alpha / static_cast<double>(options.r));
  const at::Tensor lengths = at::linalg_vector_norm(linear.weight() + change, 2, 1);
  return merged * (lengths / parameters[2].tensor.detach()).unsqueeze(1) - change;
}

TEST_P(Merged, LessTheAdapterIsTheBase) {
  const auto model = peft_model(at::kDouble, base(GetParam()));
  const LoadedAdapter loaded = load_peft(folder(GetParam()), *model);
  for (const Linear* linear : model->linears()) {
    if (!linear->adapter) continue;
    const at::Tensor weight = linear->weight(), merged = linear->adapter->merged(weight);
    EXPECT_GT(relative_error(merged, weight), 1e-2) << linear->name;
    EXPECT_LT(relative_error(unmerged(*linear, merged, loaded.options), weight), 1e-6) << linear->name;
  }
}

TEST_P(Merged, SwitchingAdaptersOnAndOffLeavesTheBaseToTheBit) {
  const auto model = peft_model(at::kFloat, base(GetParam()));
  const at::Tensor ids = at::arange(1, 14);
  const auto logits = [&] { return model->logits(model->hidden({ids, ids, {0, 13}})); };
  const at::NoGradGuard no_grad;
  const at::Tensor before = logits();
  load_peft(folder(GetParam()), *model);
  const at::Tensor adapted = logits();
  EXPECT_FALSE(at::equal(adapted, before));
  if (base(GetParam()) == base("lora")) {  // another one on the same base, and back
    load_peft(folder("lora"), *model);
    logits();
    load_peft(folder(GetParam()), *model);
    EXPECT_TRUE(at::equal(logits(), adapted));
  }
  const auto checkpoint = peft_base(base(GetParam()));
  for (const auto& [name, merge] : merged_tensors(*checkpoint, *model)) merge();
  detach(*model);
  EXPECT_TRUE(at::equal(logits(), before));
}

}  // namespace
}  // namespace retort
