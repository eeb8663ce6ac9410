// Several adapters made into one, against PEFT's add_weighted_adapter (tests/golden/make_combine.py).
#include "adapters/combine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/compare.h"
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

/// The message of the error that `action` ends with.
template <typename F>
std::string refusal(Exit exit, F&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), exit) << error.what();
    return error.what();
  }
  return "nothing was refused";
}

void expect_contains(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Combine, OneAdapterCanBeBroughtToASmallerRankWithTheLeastLoss) {
  const ProductAdapter lora = golden_adapter("lora");
  const ProductAdapter smaller = combine({lora}, {.type = "svd", .rank = 2});
  for (const auto& [module, product] : smaller.modules) {
    EXPECT_EQ(product.a.size(0), 2) << module;
    const at::Tensor before = change(lora, module), lost = before - change(smaller, module);
    const double least = at::linalg_svdvals(before).slice(0, 2).norm().item<double>();
    EXPECT_NEAR(lost.norm().item<double>(), least, 1e-5 * before.norm().item<double>()) << module;
  }
}

TEST(Combine, DareDropsByItsSeedAndKeepsTheMean) {
  ProductAdapter lora = golden_adapter("lora");
  std::erase_if(lora.modules, [](const auto& entry) { return entry.first != "model.layers.0.mlp.up_proj"; });
  const auto dare = [&](uint64_t seed) {
    return combine({lora}, {.type = "dare_linear", .density = 0.5, .seed = seed})
        .modules.at("model.layers.0.mlp.up_proj")
        .a;
  };
  EXPECT_TRUE(at::equal(dare(1), dare(1)));
  EXPECT_FALSE(at::equal(dare(1), dare(2)));
  const at::Tensor whole = combine({lora}, {.type = "linear"}).modules.at("model.layers.0.mlp.up_proj").a;
  EXPECT_TRUE(at::allclose(at::where(dare(1) != 0, whole * 2, 0.0F), dare(1)));
  at::Tensor mean = at::zeros_like(whole);
  constexpr int kSeeds = 4000;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) mean += dare(seed) / kSeeds;
  // A number's deviation is its size over the root of the number of seeds.
  EXPECT_LT(((mean - whole) / whole).abs().max().item<double>(), 5 / std::sqrt(kSeeds));
}

TEST(Combine, WithEveryNumberKeptDareIsLinearAndTiesIsTheMeanOfThoseThatAgree) {
  const std::vector<ProductAdapter> one = {golden_adapter("lora")};
  for (const char* type : {"dare_linear", "ties", "dare_ties", "magnitude_prune"})
    for (const auto& [module, product] : combine(one, {.type = type, .density = 1}).modules)
      EXPECT_TRUE(at::allclose(product.a, combine(one, {.type = "linear"}).modules.at(module).a)) << type;
}

TEST(Combine, AnEmbeddingsProductIsCombinedLikeAnyOther) {
  const ProductAdapter one = golden_adapter("embedding"),
                       both = combine({one, golden_adapter("lora")}, {.type = "cat"});
  const TemporaryFolder folder;
  save_products(folder / "adapter", both);
  const auto model = peft_model(at::kFloat);
  load_peft(folder / "adapter", *model);
  const LowRank product = model->embedding().adapter->low_rank();
  EXPECT_LT(relative_error(at::mm(product.b, product.a), change(one, "model.embed_tokens")), 1e-6);
  EXPECT_EQ(products_of(*model).size(), 22U);
}

TEST(Combine, OptionsThatAreOutOfRangeOrMeanNothingAreRefused) {
  const std::vector<ProductAdapter> two = {golden_adapter("lora"), golden_adapter("rslora")};
  const auto refused = [&](const CombineOptions& options) {
    return refusal(Exit::usage, [&] { combine(two, options); });
  };
  expect_contains(refused({.type = "linaer"}), "did you mean linear?");
  expect_contains(refused({.type = "cat", .weights = {1}}), "weights: 1 given for 2 adapters");
  expect_contains(refused({.type = "cat", .weights = {1, std::nan("")}}), "weights: nan");
  expect_contains(refused({.type = "cat", .rank = 4}), "rank: 4 does not go with cat");
  expect_contains(refused({.type = "svd", .rank = -1}), "rank: -1");
  expect_contains(refused({.type = "svd", .rank = 17}), "rank: 17 is above what model.layers.0.mlp.down_proj");
  expect_contains(refused({.type = "ties"}), "density: ties needs");
  for (const double density : {0.0, -0.1, 1.1, std::nan("")})
    expect_contains(refused({.type = "dare_ties", .density = density}), "density: dare_ties needs");
  expect_contains(refused({.type = "svd", .density = 0.5}), "density: svd keeps every number");
  expect_contains(refusal(Exit::usage, [] { combine({}, {}); }), "no adapter");
}

TEST(Combine, AdaptersThatDoNotFitTogetherAreRefused) {
  const ProductAdapter lora = golden_adapter("lora");
  const std::string ranks = refusal(Exit::usage, [&] { combine({lora, golden_adapter("head")}, {.type = "linear"}); });
  expect_contains(ranks, "o_proj");
  expect_contains(ranks, "has rank 4");
  expect_contains(ranks, "Use svd or cat");

  const auto with = [&](const auto& alter) {
    ProductAdapter other = golden_adapter("lora"), first = lora;
    first.origin.base_hash = "aaaa";
    other.origin.base_hash = "aaaa";
    alter(other);
    return refusal(Exit::bad_input, [&] { combine({first, other}, {.type = "cat"}); });
  };
  EXPECT_EQ(with([](ProductAdapter&) {}), "nothing was refused");
  expect_contains(with([](ProductAdapter& other) { other.origin.base_hash = "bbbb"; }), "different bases");
  expect_contains(with([](ProductAdapter& other) { other.origin.base_hash = "", other.origin.base = "x"; }),
                  "different bases");
  expect_contains(with([](ProductAdapter& other) { other.origin.base_form = "nf4"; }), "different forms of the base");
  expect_contains(with([](ProductAdapter& other) {
                    other.modules["model.layers.1.mlp.up_proj"].b = at::zeros({25, 4});
                  }),
                  "model.layers.1.mlp.up_proj");
}

TEST(Products, WhatIsNoProductIsRefusedWithTheReason) {
  for (const auto& [name, reason] : {std::pair{"dora", "rescaled rows"},
                                     {"ia3", "cannot scale"},
                                     {"bias", "no biases"},
                                     {"saved", "modules_to_save"},
                                     {"tokens", "trainable_token_indices"}})
    expect_contains(refusal(Exit::bad_input, [&] { golden_adapter(name); }), reason);
}

TEST(Products, VeraIsReadThroughItsBase) {
  expect_contains(refusal(Exit::usage, [] { golden_adapter("vera"); }), "--model");
  const auto model = peft_model(at::kFloat);
  const ProductAdapter vera = read_products(golden_folder / "peft_vera", model.get());
  EXPECT_TRUE(trainable_parameters(*model).empty());
  const TemporaryFolder folder;
  save_products(folder / "plain", vera);
  EXPECT_EQ(read_json(folder / "plain" / "adapter_config.json")["peft_type"], "LORA");
  const auto expected = SafetensorsFile::open(golden_folder / "peft_vera.safetensors");
  const Batch batch = golden_batch(*expected);
  load_peft(folder / "plain", *model);
  EXPECT_LT(relative_error(model->logits(model->hidden(batch)), expected->tensor("logits")), 1e-5);
}

TEST(Products, BrokenFilesAreRefusedByTensor) {
  const TemporaryFolder temporary;
  const fs::path folder = temporary / "adapter";
  fs::copy(golden_folder / "peft_lora", folder);
  const std::string tensor = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight";
  const auto with = [&](const auto& alter) {
    const auto file = SafetensorsFile::open(golden_folder / "peft_lora" / "adapter_model.safetensors");
    std::map<std::string, at::Tensor> all;
    for (const auto& entry : file->entries()) all[entry.name] = file->tensor(entry.name).clone();
    alter(all);
    write_safetensors(folder / "adapter_model.safetensors", {all.begin(), all.end()});
    return refusal(Exit::bad_input, [&] { read_products(folder); });
  };
  expect_contains(with([&](auto& all) { all.erase("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"); }),
                  "up_proj.lora_B.weight is missing");
  expect_contains(with([&](auto& all) { all.erase(tensor); }), "unexpected tensor");
  expect_contains(with([&](auto& all) { all[tensor] = at::zeros({3, 16}); }), "rank by adapter_config.json is 4");
  expect_contains(with([&](auto& all) { all[tensor] = at::zeros({4}); }), tensor);
  expect_contains(with([&](auto& all) { all[tensor].fill_(std::nan("")); }), "not finite");
  expect_contains(with([&](auto& all) { all[tensor] = all[tensor].to(at::kLong); }), "is of type I64");
  expect_contains(with([&](auto& all) { all.clear(); }), "holds no tensor of a LoRA adapter");
}

TEST(Products, NumbersThatGrowTooLargeAreRefusedAndNothingIsWritten) {
  const ProductAdapter huge = combine({golden_adapter("lora")}, {.type = "cat", .weights = {1e39}});
  const TemporaryFolder folder;
  expect_contains(refusal(Exit::bad_input, [&] { save_products(folder / "adapter", huge); }), "finite");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Compare, NormsCosinesAndRanksAreThoseOfTheProducts) {
  const ProductAdapter lora = golden_adapter("lora"), rslora = golden_adapter("rslora");
  const auto base = peft_base();
  const Json report = compare({lora, rslora}, base.get());
  EXPECT_EQ(report["modules"].size(), 21U);
  EXPECT_EQ(report["layers"].size(), 7U);
  for (const Json& entry : report["modules"]) {
    const auto module = entry["module"].get<std::string>();
    const at::Tensor first = change(lora, module);
    const at::Tensor second = rslora.modules.contains(module) ? change(rslora, module) : at::zeros_like(first);
    const double size = first.norm().item<double>();
    EXPECT_NEAR(entry["size"][0].get<double>(), size, 1e-5 * size);
    EXPECT_NEAR(entry["size"][1].get<double>(), second.norm().item<double>(), 1e-5 * size);
    EXPECT_NEAR(entry["difference"].get<double>(), (second - first).norm().item<double>() / size, 1e-5);
    EXPECT_NEAR(entry["base"].get<double>(), base->tensor(module + ".weight").dequantize().norm().item<double>(), 1e-5);
    const at::Tensor energy = at::linalg_svdvals(first).square().cumsum(0);
    EXPECT_EQ(entry["rank"][0].get<double>(), (energy < kEnergy * energy[-1]).sum().item<double>() + 1) << module;
    EXPECT_EQ(entry["stored_rank"][0], 4.0);
    if (!rslora.modules.contains(module)) {
      EXPECT_TRUE(entry["cosine"].is_null());
      continue;
    }
    const double cosine = (first * second).sum().item<double>() / (size * second.norm().item<double>());
    EXPECT_NEAR(entry["cosine"].get<double>(), cosine, 1e-5);
  }
  EXPECT_EQ(report["layers"][0]["count"], 3);
}

TEST(Compare, AnAdapterIsNoDifferentFromItself) {
  const Json report = compare({golden_adapter("lora"), golden_adapter("lora")});
  EXPECT_EQ(report["all"]["difference"], 0.0);
  EXPECT_NEAR(report["all"]["cosine"].get<double>(), 1, 1e-12);
  EXPECT_FALSE(report["all"].contains("base"));
}

}  // namespace
}  // namespace retort
