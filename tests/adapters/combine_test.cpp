// Several adapters made into one, against PEFT's add_weighted_adapter (tests/golden/make_combine.py).
#include "adapters/combine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/json.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

ProductAdapter golden_adapter(const std::string& name) { return read_products(golden_folder / ("peft_" + name)); }

at::Tensor change(const ProductAdapter& adapter, const std::string& module) {
  const Product& product = adapter.modules.at(module);
  return at::mm(product.b, product.a) * product.scale;
}

struct Case {
  const char* name;
  std::vector<const char*> adapters;
  CombineOptions options;
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

/// The list of make_combine.py.
std::vector<Case> cases() {
  const auto options = [](const char* type, std::vector<double> weights, int64_t rank = 0,
                          std::optional<double> density = {}) {
    return CombineOptions{.type = type, .weights = std::move(weights), .rank = rank, .density = density, .seed = 9};
  };
  return {{"linear", {"lora", "rslora"}, options("linear", {0.7, -0.4})},
          {"cat", {"lora", "rslora", "head"}, options("cat", {0.7, -0.4, 1.5})},
          {"svd", {"lora", "rslora", "head"}, options("svd", {0.7, 0.4, 1.5}, 3)},
          {"svd_largest", {"lora", "head"}, options("svd", {1, 1})},
          {"ties", {"lora", "rslora"}, options("ties", {0.7, 0.4}, 0, 0.4)},
          {"ties_svd", {"lora", "rslora"}, options("ties_svd", {0.7, 0.4}, 5, 0.4)},
          {"dare_linear", {"lora", "rslora"}, options("dare_linear", {0.7, -0.4}, 0, 0.6)},
          {"dare_linear_svd", {"lora", "rslora"}, options("dare_linear_svd", {0.7, 0.4}, 0, 0.6)},
          {"dare_ties", {"lora", "rslora"}, options("dare_ties", {0.7, 0.4}, 0, 0.6)},
          {"dare_ties_svd", {"lora", "rslora"}, options("dare_ties_svd", {0.7, 0.4}, 0, 0.6)},
          {"magnitude_prune", {"lora", "rslora"}, options("magnitude_prune", {0.7, 0.4}, 0, 0.3)},
          {"magnitude_prune_svd", {"lora", "rslora"}, options("magnitude_prune_svd", {0.7, 0.4}, 0, 0.3)}};
}

class Combined : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Types, Combined, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Combined, AgreesWithPeft) {
  std::vector<ProductAdapter> adapters;
  for (const char* name : GetParam().adapters) adapters.push_back(golden_adapter(name));
  const ProductAdapter combined = combine(adapters, GetParam().options);
  const auto expected = SafetensorsFile::open(golden_folder / "combine.safetensors");
  const std::string before = std::string(GetParam().name) + ".";
  int compared = 0;
  for (const SafetensorsEntry& entry : expected->entries()) {
    if (!entry.name.starts_with(before)) continue;
    const size_t dot = entry.name.rfind('.');
    const std::string module = entry.name.substr(before.size(), dot - before.size()), part = entry.name.substr(dot + 1);
    const Product& product = combined.modules.at(module);
    const at::Tensor got = part == "A" ? product.a : part == "B" ? product.b : change(combined, module);
    EXPECT_LT(relative_error(got, expected->tensor(entry.name)), 2e-6) << entry.name;
    ++compared;
  }
  EXPECT_GE(compared, 4);
  EXPECT_EQ(combined.modules.size(), GetParam().adapters.back() == std::string("head") ? 22U : 21U);
}

TEST_P(Combined, IsSavedAsAPlainLoraThatComputesTheSame) {
  std::vector<ProductAdapter> adapters;
  for (const char* name : GetParam().adapters) adapters.push_back(golden_adapter(name));
  const ProductAdapter combined = combine(adapters, GetParam().options);
  const TemporaryFolder folder;
  save_products(folder / "adapter", combined);
  const Json config = read_json(folder / "adapter" / "adapter_config.json");
  EXPECT_EQ(config["r"], config["lora_alpha"]);
  EXPECT_TRUE(config["rank_pattern"].empty());
  const auto model = peft_model(at::kFloat);
  load_peft(folder / "adapter", *model);
  for (const Linear* linear : model->linears()) {
    if (!linear->adapter) continue;
    const LowRank product = linear->adapter->low_rank();
    EXPECT_LT(relative_error(at::mm(product.b, product.a), change(combined, linear->name)), 1e-6) << linear->name;
  }
}

}  // namespace
}  // namespace retort
