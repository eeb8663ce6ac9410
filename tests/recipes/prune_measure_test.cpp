// What pruning measures, against the same written out over whole logits.
#include "recipes/prune_measure.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/temporary_folder.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

struct PruneMeasure : testing::Test {
  TemporaryFolder folder;
  std::unique_ptr<Checkpoint> base;
  std::unique_ptr<CausalLM> teacher, student;
  std::vector<Batch> windows;
  at::NoGradGuard no_grad;

  void SetUp() override {
    write_tiny_folder(folder / "base", tiny_config(), tiny_tensors(tiny_config()));
    base = Checkpoint::open(folder / "base");
    teacher = CausalLM::load(*base, {});
    student = CausalLM::load(*prune_while_reading(*base, {.layers = {1}}), {});
    // The second window's second document alone holds token 12.
    for (const auto& [ids, offsets] : {std::pair<std::vector<int64_t>, std::vector<int64_t>>{{1, 5, 3, 2}, {0, 4}},
                                       {{4, 7, 9, 12, 2, 6, 8, 1, 3}, {0, 3, 6, 9}}}) {
      Batch window{at::tensor(ids, at::kLong), at::tensor(ids, at::kLong).roll(-1), offsets};
      for (size_t d = 1; d < offsets.size(); ++d) window.labels[offsets[d] - 1] = -1;
      windows.push_back(std::move(window));
    }
  }
  static at::Tensor log_p(CausalLM& model, const Batch& window) {
    return model.logits(model.hidden(window)).log_softmax(1);
  }
};

TEST_F(PruneMeasure, LossIsTheLabelsCrossEntropy) {
  double nats = 0;
  for (const Batch& window : windows) {
    const at::Tensor rows = at::nonzero(window.labels >= 0).squeeze(1);
    nats -= log_p(*teacher, window)
                .index_select(0, rows)
                .gather(1, window.labels.index_select(0, rows).unsqueeze(1))
                .sum()
                .item<double>();
  }
  const RowLoss loss = loss_on(*teacher, hidden_states(*teacher, windows), windows);
  EXPECT_NEAR(loss.nats, nats, 1e-4);
  EXPECT_EQ(loss.tokens, 9);
}

TEST_F(PruneMeasure, FidelityIsThatOfWholeLogits) {
  double kl = 0, same = 0;
  for (const Batch& window : windows) {
    const at::Tensor p = log_p(*teacher, window), q = log_p(*student, window);
    kl += (p.exp() * (p - q)).sum().item<double>();
    same += (p.argmax(1) == q.argmax(1)).sum().item<double>();
  }
  const auto hidden = hidden_states(*teacher, windows);
  const Fidelity found = compare(*teacher, hidden, *student, windows);
  EXPECT_EQ(found.tokens, 13);
  EXPECT_NEAR(found.kl, kl / 13, 1e-5);
  EXPECT_NEAR(found.top1, same / 13, 1e-9);
  EXPECT_EQ(found.lost, 0);
  EXPECT_NEAR(divergence(*teacher, hidden, *student, windows, std::numeric_limits<double>::infinity()), kl / 13, 1e-5);
  // Over the limit after the first window: less than the whole, more than the limit.
  const double first = compare(*teacher, {hidden[0]}, *student, {windows[0]}).kl * 4 / 13;
  EXPECT_NEAR(divergence(*teacher, hidden, *student, windows, first / 2), first, 1e-5);
}

TEST_F(PruneMeasure, TokensThatAStudentLacksAreLostMassAndTheirDocumentsLeftOut) {
  std::vector<int64_t> tokens(12);
  for (int64_t id = 0; id < 12; ++id) tokens[static_cast<size_t>(id)] = id;  // all but 12
  tokens.erase(tokens.begin());                                              // and 0, so that ids move
  const auto cut = CausalLM::load(*prune_while_reading(*base, {.tokens = tokens}), {});
  const auto hidden = hidden_states(*teacher, windows);
  double lost = 0;
  int64_t rows = 0;
  for (const Batch& window : windows) {
    const at::Tensor p = log_p(*teacher, window).exp();
    for (size_t d = 0; d + 1 < window.offsets.size(); ++d) {
      const at::Tensor document = p.slice(0, window.offsets[d], window.offsets[d + 1]);
      if ((window.ids.slice(0, window.offsets[d], window.offsets[d + 1]) == 12).any().item<bool>()) continue;
      lost += (document.select(1, 0) + document.select(1, 12)).sum().item<double>();
      rows += document.size(0);
    }
  }
  const Fidelity found = compare(*teacher, hidden, *cut, windows, tokens);
  EXPECT_EQ(found.tokens, rows);
  EXPECT_EQ(rows, 10);
  EXPECT_NEAR(found.lost, lost / 10, 1e-5);
  EXPECT_NEAR(found.kl, 0, 1e-5) << "of the tokens that both have the student thinks as the teacher";
  EXPECT_EQ(found.top1, 1);
}

TEST_F(PruneMeasure, AChannelContributesWhatItAddsToTheLayersOutput) {
  std::map<std::string, std::vector<at::Tensor>> inputs;
  teacher->observe([&](const std::string& name, const at::Tensor& x) { inputs[name].push_back(x.clone()); });
  for (const Batch& window : windows) teacher->hidden(window);
  teacher->observe({});
  const auto scores = channel_contributions(*base, *teacher, windows);
  ASSERT_EQ(scores.size(), 2U);
  for (const size_t layer : {0, 1}) {
    const std::string name = fmt::format("model.layers.{}.mlp.down_proj", layer);
    const at::Tensor x = at::cat(inputs.at(name)), weight = base->tensor(name + ".weight").dequantize(at::kFloat);
    ASSERT_EQ(x.size(0), 13);
    for (int64_t c = 0; c < 14; ++c) {
      const at::Tensor added = at::outer(x.select(1, c), weight.select(1, c));  // [T, dim]
      const double root_mean_square = std::sqrt(added.square().sum(1).mean().item<double>());
      EXPECT_NEAR(scores[layer][c].item<double>() / root_mean_square, 1, 1e-5) << name << " " << c;
    }
  }
}

}  // namespace
}  // namespace retort
