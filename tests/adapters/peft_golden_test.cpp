// What the adapters compute, against PEFT (tests/golden/make_peft.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>

#include "adapters/attach.h"
#include "adapters/merge.h"
#include "adapters/peft.h"
#include "core/error.h"
#include "core/files.h"
#include "models/quantized_checkpoint.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

class Peft : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    expected_ = SafetensorsFile::open(golden_folder / fmt::format("peft_{}.safetensors", GetParam()));
    batch_ = golden_batch(*expected_);
  }
  /// The base that the adapter is for.
  std::string base() const { return read_peft_config(folder()).origin.base; }
  std::filesystem::path folder() const { return golden_folder / fmt::format("peft_{}", GetParam()); }

  std::shared_ptr<const SafetensorsFile> expected_;
  Batch batch_;
};
INSTANTIATE_TEST_SUITE_P(Golden, Peft,
                         testing::Values("lora", "rslora", "patterns", "head", "bias", "dora", "vera", "ia3",
                                         "embedding", "saved", "tokens", "tied_tokens"));

TEST_P(Peft, LogitsAgree) {
  const auto model = peft_model(at::kDouble, base());
  const at::Tensor before = model->logits(model->hidden(batch_));
  load_peft(folder(), *model);
  const at::Tensor logits = model->logits(model->hidden(batch_));
  EXPECT_LT(relative_error(logits, expected_->tensor("logits")), 1e-6);  // logits are f32
  EXPECT_GT(relative_error(before, expected_->tensor("logits")), 1e-2);
}

TEST_P(Peft, LossAndEveryGradientAgree) {
  const auto model = peft_model(at::kDouble, base());
  load_peft(folder(), *model);
  const at::Tensor loss = model->cross_entropy(model->hidden(batch_, {.training = true}), batch_.labels);
  loss.backward();
  EXPECT_LT(relative_error(loss.detach().reshape({1}), expected_->tensor("loss")), 1e-12);
  const auto parameters = trainable_parameters(*model);
  EXPECT_EQ(parameters.size(), static_cast<size_t>(std::count_if(
                                   expected_->entries().begin(), expected_->entries().end(),
                                   [](const SafetensorsEntry& entry) { return entry.name.starts_with("grad."); })));
  for (const Parameter& parameter : parameters)
    EXPECT_LT(relative_error(parameter.tensor.grad(), expected_->tensor("grad.base_model.model." + parameter.name)),
              1e-9)
        << parameter.name;
}

TEST_P(Peft, MergedWeightsAgree) {
  const auto checkpoint = peft_base(base());
  const auto model = peft_model(at::kDouble, base());
  const LoadedAdapter loaded = load_peft(folder(), *model);
  int64_t compared = 0;
  int64_t biases = 0;
  for (const auto& [name, merged] : merged_tensors(*checkpoint, *model)) {
    if (!expected_->find("merged." + name)) continue;
    EXPECT_LT(relative_error(merged(), expected_->tensor("merged." + name)), 1e-6) << name;
    (name.ends_with(".bias") ? biases : compared) += 1;
  }
  EXPECT_EQ(compared,
            std::min<int64_t>(4, static_cast<int64_t>(loaded.report.targets.size() + loaded.report.saved.size() +
                                                      !loaded.options.trainable_token_indices.empty())));
  EXPECT_EQ(biases > 0, base() == "peft_biased");
}

TEST_P(Peft, WhatIsSavedIsReadBackTheSame) {
  const auto model = peft_model(at::kDouble, base());
  const LoadedAdapter loaded = load_peft(folder(), *model);
  const TemporaryFolder saved;
  save_peft(saved.path() / "adapter", *model, loaded.options, loaded.origin);
  const auto before = SafetensorsFile::open(folder() / "adapter_model.safetensors"),
             after = SafetensorsFile::open(saved.path() / "adapter" / "adapter_model.safetensors");
  for (const SafetensorsEntry& entry : after->entries())
    EXPECT_TRUE(at::equal(after->tensor(entry.name), before->tensor(entry.name))) << entry.name;
  const Json theirs = read_json(folder() / "adapter_config.json"),
             ours = read_json(saved.path() / "adapter" / "adapter_config.json");
  for (const auto& [key, value] : ours.items()) {
    if (key == "target_modules" || key == "feedforward_modules" || key == "base_model_name_or_path") continue;
    EXPECT_EQ(theirs.contains(key) ? theirs[key] : Json(nullptr), value) << key;
  }
}

/// Adapters that start from the weight: PEFT writes to the base, here it stays as it is.
class Start : public testing::TestWithParam<const char*> {
 protected:
  at::Tensor expected(const std::string& name) const { return file_->tensor(GetParam() + ("." + name)); }
  AdapterOptions options() const {
    AdapterOptions options;
    options.r = 4;
    options.lora_alpha = 6;
    options.target_modules = {.expression = "", .names = {"q_proj", "down_proj"}};
    options.init_lora_weights.kind = GetParam() == std::string("olora") ? LoraInit::olora : LoraInit::pissa;
    return options;
  }
  std::shared_ptr<const SafetensorsFile> file_ = SafetensorsFile::open(golden_folder / "peft_starts.safetensors");
};
INSTANTIATE_TEST_SUITE_P(Golden, Start, testing::Values("pissa", "olora"));

TEST_P(Start, TakesTheSamePartOfTheWeightAndChangesNothingYet) {
  const auto model = peft_model();
  const at::Tensor ids = expected("ids").clone();
  const Batch batch{ids, expected("labels").clone(), {0, ids.size(0)}};
  const at::Tensor before = model->logits(model->hidden(batch));
  attach(*model, options(), 1);
  const auto parameters = trainable_parameters(*model);
  for (size_t i = 0; i < parameters.size(); i += 2) {
    const at::Tensor &a = parameters[i].tensor, &b = parameters[i + 1].tensor;
    const std::string module = parameters[i].name.substr(0, parameters[i].name.find(".lora_"));
    EXPECT_LT(relative_error(1.5 * at::mm(b.detach(), a.detach()), expected("start." + module)), 1e-5) << module;
  }
  EXPECT_LT(relative_error(model->logits(model->hidden(batch)), before), 1e-6);
}

TEST_P(Start, TrainsLikePeftOnTheBaseThatItChanged) {
  const auto model = peft_model();
  attach(*model, options(), 1);
  for (const Parameter& parameter : trainable_parameters(*model))
    parameter.tensor.detach().copy_(expected(parameter.name));
  const at::Tensor ids = expected("ids").clone();
  const Batch batch{ids, expected("labels").clone(), {0, ids.size(0)}};
  EXPECT_LT(relative_error(model->logits(model->hidden(batch)), expected("logits")), 1e-5);
  model->cross_entropy(model->hidden(batch, {.training = true}), batch.labels).backward();
  for (const Parameter& parameter : trainable_parameters(*model))
    EXPECT_LT(relative_error(parameter.tensor.grad(), expected("grad.base_model.model." + parameter.name)), 1e-5)
        << parameter.name;

  // Saved as a plain LoRA of twice the rank on the untouched base.
  const TemporaryFolder saved;
  save_peft(saved.path() / "adapter", *model, options(), {});
  const auto again = peft_model();
  const LoadedAdapter loaded = load_peft(saved.path() / "adapter", *again);
  EXPECT_EQ(loaded.options.r, 8);
  EXPECT_EQ(loaded.options.lora_alpha, 12);
  EXPECT_LT(relative_error(again->logits(again->hidden(batch)), expected("logits")), 1e-5);
}

TEST(WeightStart, TheRandomizedDecompositionFindsThePrincipalPart) {
  const auto model = peft_model();
  AdapterOptions options;
  options.r = 4;
  options.init_lora_weights = {LoraInit::pissa, 16};
  attach(*model, options, 1);
  for (const Linear* linear : model->linears()) {
    if (!linear->adapter) continue;
    const at::Tensor weight = linear->weight();
    const at::Tensor left = weight - 8 * at::mm(linear->adapter->parameters()[1].tensor.detach(),
                                                linear->adapter->parameters()[0].tensor.detach());
    const at::Tensor best = at::linalg_svdvals(weight).slice(0, 4).norm();  // Eckart and Young
    EXPECT_LT(left.norm().item<double>(), 1.001 * best.item<double>()) << linear->name;
  }
}

TEST(WeightStart, LoftqMakesUpForTheErrorOfQuantization) {
  AdapterOptions options;
  options.r = 4;
  options.use_rslora = true;  // another scale than 1
  options.init_lora_weights = {LoraInit::loftq, 0};
  const auto checkpoint = quantize_while_reading(peft_base(), bnb_options("nf4"));
  const auto model = CausalLM::load(*checkpoint, {.base = BaseForm::native, .dtype = at::kDouble});
  EXPECT_THROW(attach(*model, options, 1), Error) << "without the weights there is nothing to make up for";
  attach(*model, options, 1, original_weights(*checkpoint));
  const auto originals = peft_base();
  for (const Linear* linear : model->linears()) {
    if (!linear->adapter) continue;
    const at::Tensor lost = originals->tensor(linear->name + ".weight").dequantize(at::kDouble) - linear->weight();
    const at::Tensor left = lost - (linear->adapter->merged(linear->weight()) - linear->weight());
    EXPECT_LT(left.norm().item<double>(), 1.0001 * at::linalg_svdvals(lost).slice(0, 4).norm().item<double>());
    EXPECT_GT(lost.norm().item<double>(), 1.1 * left.norm().item<double>());
  }
  // Saved as a plain LoRA, for the base in its 4 bits.
  const TemporaryFolder saved;
  save_peft(saved.path() / "adapter", *model, options, {});
  const auto again = CausalLM::load(*checkpoint, {.base = BaseForm::native, .dtype = at::kDouble});
  EXPECT_EQ(load_peft(saved.path() / "adapter", *again).options.init_lora_weights.kind, LoraInit::kaiming);
  const at::Tensor ids = at::arange(1, 14);
  const Batch batch{ids, ids, {0, 13}};
  EXPECT_LT(relative_error(again->logits(again->hidden(batch)), model->logits(model->hidden(batch))), 1e-6);
}

TEST(WeightStart, ARankAboveTheWeightsIsRefused) {
  AdapterOptions options;
  options.r = 64;
  options.init_lora_weights = {LoraInit::pissa, 0};
  const auto model = peft_model();
  EXPECT_THROW(attach(*model, options, 1), Error);
}

/// A quantized base gives what the same numbers give as a dense one, for every kind and start.
TEST(QuantizedBase, ChangesNoKindsArithmetic) {
  std::vector<AdapterOptions> all(6);
  for (size_t i = 0; i < 4; ++i) all[i].kind = std::array{"lora", "dora", "vera", "ia3"}[i];
  all[4].init_lora_weights = {LoraInit::pissa, 0};
  all[5].trainable_token_indices = {3, 7};
  const auto checkpoint = quantize_while_reading(peft_base(), bnb_options("nf4"));
  const auto file = SafetensorsFile::open(golden_folder / "peft_lora.safetensors");
  const Batch batch = golden_batch(*file);
  for (AdapterOptions& options : all) {
    if (options.kind != "ia3") options.r = 4;
    std::vector<at::Tensor> results[2];
    for (const BaseForm form : {BaseForm::dense, BaseForm::native}) {
      const auto model = CausalLM::load(*checkpoint, {.base = form, .dtype = at::kDouble});
      attach(*model, options, 1);
      at::manual_seed(2);
      for (const Parameter& parameter : trainable_parameters(*model))
        parameter.tensor.detach().add_(at::randn_like(parameter.tensor), 0.1);
      const at::Tensor loss = model->cross_entropy(model->hidden(batch, {.training = true}), batch.labels);
      loss.backward();
      std::vector<at::Tensor>& result = results[form == BaseForm::native];
      result.push_back(loss.detach().reshape({1}));
      for (const Parameter& parameter : trainable_parameters(*model)) result.push_back(parameter.tensor.grad());
    }
    for (size_t i = 0; i < results[0].size(); ++i)
      EXPECT_LT(relative_error(results[1][i], results[0][i]), 1e-10) << options.kind << " " << i;
  }
}

}  // namespace
}  // namespace retort
