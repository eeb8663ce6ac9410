// Closed-form gradients against finite differences and against each other, in f64.
#include <gtest/gtest.h>

#include <functional>

#include "models/attention.h"
#include "models/cross_entropy.h"
#include "models/rms_norm.h"
#include "models/rope.h"
#include "models/swiglu.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::kDouble); }

/// d f / d x by central differences; error about 1e-9 for functions of order 1.
at::Tensor differences(const std::function<at::Tensor()>& f, at::Tensor x) {
  at::Tensor gradient = at::zeros_like(x), flat = x.view(-1), out = gradient.view(-1);
  const double h = 1e-5;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const double kept = flat[i].item<double>();
    flat[i] = kept + h;
    const double above = f().item<double>();
    flat[i] = kept - h;
    const double below = f().item<double>();
    flat[i] = kept;
    out[i] = (above - below) / (2 * h);
  }
  return gradient;
}

TEST(Gradients, RmsNormEqualsDifferences) {
  at::manual_seed(1);
  at::Tensor x = random({3, 7});
  const at::Tensor w = random({7}), dy = random({3, 7}), residual = random({3, 7});
  const auto f = [&] { return (rms_norm(x, w, 1e-3) * dy).sum() + (x * residual).sum(); };
  EXPECT_LT(relative(rms_norm_backward(x, w, 1e-3, dy, residual), differences(f, x)), 1e-7);
}

TEST(Gradients, SwigluEqualsDifferences) {
  at::manual_seed(2);
  at::Tensor gate = random({3, 5}) * 3, up = random({3, 5});
  const at::Tensor dy = random({3, 5});
  const auto f = [&] { return (swiglu(gate, up) * dy).sum(); };
  const at::Tensor dgate = differences(f, gate), dup = differences(f, up);
  swiglu_backward(dy, gate, up);
  EXPECT_LT(relative(gate, dgate), 1e-7);
  EXPECT_LT(relative(up, dup), 1e-7);
}

TEST(Gradients, RotateBackIsTheInverse) {
  at::manual_seed(3);
  ModelConfig config;
  config.head_dim = 6;
  const Rotary angles = rotary(config, {0, 2, 5}, at::kDouble, at::kCPU);
  const at::Tensor x = random({5, 12});
  at::Tensor y = x.clone();
  rotate(y, angles);
  EXPECT_GT(relative(y, x), 0.1);
  EXPECT_TRUE(at::equal(y[2], x[2])) << "positions restart in the second document";
  rotate(y, angles, true);
  EXPECT_LT(relative(y, x), 1e-14);
}

TEST(Gradients, AttentionEqualsDifferencesWithAndWithoutWindow) {
  const std::vector<int64_t> offsets = {0, 3, 9};
  for (const int64_t window : {0, 4}) {
    at::manual_seed(4);
    const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 3, .window = window};
    at::Tensor q = random({9, 12}), k = random({9, 6}), v = random({9, 6});
    const at::Tensor dy = random({9, 12});
    const auto f = [&] { return (attention(q, k, v, offsets, shape).out * dy).sum(); };
    const AttentionGrad grad = attention_backward(dy, q, k, v, attention(q, k, v, offsets, shape), offsets, shape);
    EXPECT_LT(relative(grad.dq, differences(f, q)), 1e-7) << window;
    EXPECT_LT(relative(grad.dk, differences(f, k)), 1e-7) << window;
    EXPECT_LT(relative(grad.dv, differences(f, v)), 1e-7) << window;
  }
}

TEST(Gradients, AttentionOfLongDocumentsEqualsAtens) {
  const std::vector<int64_t> offsets = {0, 150, 151, 340};
  for (const int64_t window : {0, 10, 100}) {
    at::manual_seed(6);
    const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = 8, .window = window};
    const at::Tensor q = random({340, 48}), k = random({340, 16}), v = random({340, 16}), dy = random({340, 48});
    const Attention got = attention(q, k, v, offsets, shape);
    const AttentionGrad grad = attention_backward(dy, q, k, v, got, offsets, shape);
    for (size_t d = 0; d + 1 < offsets.size(); ++d) {
      const int64_t begin = offsets[d], end = offsets[d + 1], n = end - begin;
      const auto heads = [&](const at::Tensor& x) {
        return x.slice(0, begin, end).view({1, n, -1, 8}).transpose(1, 2).clone().requires_grad_(true);
      };
      const auto flat = [&](const at::Tensor& x) { return x.transpose(1, 2).reshape({n, -1}); };
      const at::Tensor q4 = heads(q), k4 = heads(k), v4 = heads(v);
      at::Tensor seen = at::ones({n, n}, at::kBool).tril_();
      if (window) seen = seen.triu_(1 - window);
      const at::Tensor out = at::scaled_dot_product_attention(q4, k4, v4, seen, 0, false, std::nullopt, true);
      (flat(out) * dy.slice(0, begin, end)).sum().backward();
      EXPECT_LT(relative(got.out.slice(0, begin, end), flat(out)), 1e-12) << window;
      EXPECT_LT(relative(grad.dq.slice(0, begin, end), flat(q4.grad())), 1e-12) << window;
      EXPECT_LT(relative(grad.dk.slice(0, begin, end), flat(k4.grad())), 1e-12) << window;
      EXPECT_LT(relative(grad.dv.slice(0, begin, end), flat(v4.grad())), 1e-12) << window;
    }
  }
}

TEST(Gradients, CrossEntropyEqualsDifferencesForEveryChunk) {
  at::manual_seed(5);
  Linear head{"lm_head", 5, 11, {}, {}, {}};
  const at::Tensor weight = random({11, 5});
  head.weight = weight;
  at::Tensor x = random({9, 5});
  const at::Tensor labels = at::tensor({3, -1, 10, 0, 5, -1, -1, 7, 2}, at::kLong);
  const at::Tensor want =
      at::cross_entropy_loss(at::mm(x, weight.t()), labels, {}, /*reduction=*/2 /*sum*/, /*ignore_index=*/-1);
  const at::Tensor numeric = differences([&] { return linear_cross_entropy(head, x, labels); }, x);
  for (const int64_t chunk : {1, 2, 4, 256}) {
    at::Tensor leaf = x.clone().requires_grad_(true);
    const at::Tensor loss = linear_cross_entropy(head, leaf, labels, chunk);
    EXPECT_LT(relative(loss, want), 1e-13);
    (loss * 3).backward();
    EXPECT_LT(relative(leaf.grad() / 3, numeric), 1e-7) << chunk;
    EXPECT_EQ(leaf.grad()[1].abs().max().item<double>(), 0) << "a token without label has no gradient";
  }
}

TEST(Gradients, CrossEntropyOfImprobableLabelsStaysFinite) {
  Linear head{"lm_head", 2, 3, {}, {}, {}};
  const at::Tensor weight = at::tensor({1.0, 0.0, -1.0, 0.0, 0.0, 0.0}, at::kFloat).view({3, 2});
  head.weight = weight;
  const at::Tensor x = at::tensor({500.0, 0.0}, at::kFloat).view({1, 2}).requires_grad_(true);
  const at::Tensor loss = linear_cross_entropy(head, x, at::tensor({1}, at::kLong));
  EXPECT_FLOAT_EQ(loss.item<float>(), 1000);
  loss.backward();
  EXPECT_FLOAT_EQ(x.grad()[0][0].item<float>(), 2);
}

TEST(Gradients, WholeModelEqualsDifferencesOfSampledParameters) {
  const auto model = tiny_model("grouped", at::kDouble);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch batch = documents({4, 9}, model->config().vocab);
  loss_of(*model, batch).backward();
  for (const Parameter& p : parameters_of(*model)) {
    at::Tensor flat = p.tensor.detach().view(-1);
    for (const int64_t i : {int64_t{0}, flat.numel() / 2}) {
      at::Tensor one = flat.slice(0, i, i + 1);
      const at::Tensor numeric = differences([&] { return loss_of(*model, batch, {}); }, one);
      EXPECT_NEAR(p.tensor.grad().view(-1)[i].item<double>(), numeric.item<double>(), 1e-6) << p.name;
    }
  }
}

TEST(Gradients, FlowThroughLogits) {
  const auto model = tiny_model("biases", at::kDouble);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch batch = documents({6, 5}, model->config().vocab);
  loss_of(*model, batch).backward();
  const auto want = take_gradients(*model);
  const at::Tensor logits = model->logits(model->hidden(batch, {.training = true}));
  at::cross_entropy_loss(logits, batch.labels, {}, 2, -1).backward();
  const auto got = take_gradients(*model);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_LT(relative(got[i], want[i]), 1e-10) << i;
}

class Batching : public testing::TestWithParam<const char*> {};

TEST_P(Batching, PackedDocumentsEqualOneByOne) {
  const auto model = tiny_model(GetParam(), at::kDouble);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch packed = documents({5, 1, 12, 3}, model->config().vocab);
  const at::Tensor loss = loss_of(*model, packed);
  loss.backward();
  const auto together = take_gradients(*model);
  double sum = 0;
  for (size_t d = 0; d + 1 < packed.offsets.size(); ++d) {
    const int64_t begin = packed.offsets[d], end = packed.offsets[d + 1];
    const Batch one{packed.ids.slice(0, begin, end), packed.labels.slice(0, begin, end), {0, end - begin}};
    const at::Tensor part = loss_of(*model, one);
    part.backward();
    sum += part.item<double>();
  }
  EXPECT_NEAR(loss.item<double>(), sum, 1e-10 * sum);
  const auto apart = take_gradients(*model);
  for (size_t i = 0; i < apart.size(); ++i) EXPECT_LT(relative(together[i], apart[i]), 1e-10) << i;
}

TEST_P(Batching, CheckpointingChangesNoBit) {
  const auto model = tiny_model(GetParam(), at::kFloat);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch batch = documents({8, 6}, model->config().vocab);
  std::vector<std::vector<at::Tensor>> gradients;
  for (const bool checkpointing : {false, true}) {
    loss_of(*model, batch, {.training = true, .checkpointing = checkpointing}).backward();
    gradients.push_back(take_gradients(*model));
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(at::equal(gradients[0][i], gradients[1][i])) << i;
}

TEST_P(Batching, NativeEqualsDense) {
  std::vector<std::vector<at::Tensor>> gradients;
  for (const BaseForm base : {BaseForm::dense, BaseForm::native}) {
    const auto model = tiny_model(GetParam(), at::kFloat, base);
    attach_random(*model, [](const std::string&) { return true; });
    loss_of(*model, documents({8, 6}, model->config().vocab)).backward();
    gradients.push_back(take_gradients(*model));
  }
  // The same weights; products by tiles add in another order.
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_LT(relative(gradients[1][i], gradients[0][i]), 1e-5) << i;
}

INSTANTIATE_TEST_SUITE_P(TinyLlama, Batching, testing::Values("grouped", "biases", "head_dim", "window"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Training, EveryAdapterGetsItsGradientWhereverItIs) {
  const auto all = tiny_model("grouped", at::kDouble);
  attach_random(*all, [](const std::string&) { return true; });
  const auto alone = tiny_model("grouped", at::kDouble);
  const Batch batch = documents({7, 4}, all->config().vocab);
  for (Linear* target : alone->linears()) {
    detach_all(*alone);
    attach_random(*alone, [&](const std::string& name) { return name == target->name; });
    const at::Tensor loss = loss_of(*alone, batch);
    loss.backward();
    const auto gradients = take_gradients(*alone);  // throws when there is none
    at::Tensor a = parameters_of(*alone)[0].tensor.detach().view(-1);
    at::Tensor one = a.slice(0, 0, 1);
    const at::Tensor numeric = differences([&] { return loss_of(*alone, batch, {}); }, one);
    EXPECT_NEAR(gradients[0].view(-1)[0].item<double>(), numeric.item<double>(), 1e-6) << target->name;
  }
}

TEST(Training, EvaluationKeepsNoGraph) {
  const auto model = tiny_model("grouped", at::kFloat);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch batch = documents({7}, model->config().vocab);
  EXPECT_FALSE(loss_of(*model, batch, {}).requires_grad());
  EXPECT_TRUE(loss_of(*model, batch).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(loss_of(*model, batch).requires_grad());
}

TEST(Training, GradientsAddUpOverBackwards) {
  const auto model = tiny_model("grouped", at::kDouble);
  attach_random(*model, [](const std::string&) { return true; });
  const Batch batch = documents({7, 4}, model->config().vocab);
  loss_of(*model, batch).backward();
  const auto once = take_gradients(*model);
  loss_of(*model, batch).backward();
  (loss_of(*model, batch) * 2).backward();
  const auto thrice = take_gradients(*model);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_LT(relative(thrice[i], once[i] * 3), 1e-12);
}

TEST(Training, ABatchWithNothingToTrainHasLossZero) {
  const auto model = tiny_model("grouped", at::kFloat);
  attach_random(*model, [](const std::string&) { return true; });
  Batch batch = documents({7}, model->config().vocab);
  loss_of(*model, batch).backward();
  take_gradients(*model);
  batch.labels.fill_(-1);
  const at::Tensor loss = loss_of(*model, batch);
  EXPECT_EQ(loss.item<float>(), 0);
  loss.backward();
  for (const at::Tensor& gradient : take_gradients(*model)) EXPECT_EQ(gradient.abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace retort
