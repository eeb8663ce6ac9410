// Values and gradients of every loss: golden ones, unfused ones in f64, finite differences, both implementations.
#include "trainer/divergence.h"

#include <gtest/gtest.h>

#include "core/json.h"
#include "tests/trainer/divergence.h"
#include "trainer/divergence_chunk.h"

namespace retort {
namespace {

at::Tensor table(const Json& rows) {
  std::vector<double> numbers;
  for (const Json& row : rows)
    for (const Json& x : row) numbers.push_back(x.get<double>());
  return at::tensor(numbers, at::kDouble).view({static_cast<int64_t>(rows.size()), -1});
}

class DivergenceGolden : public testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, DivergenceGolden, testing::Values(at::kFloat, at::kDouble),
                         [](const auto& info) { return info.param == at::kFloat ? "f32" : "f64"; });

TEST_P(DivergenceGolden, ValuesAndGradientsAreTheReferences) {
  const Json golden = read_json(RETORT_GOLDEN "/divergences.json");
  const at::Tensor student = table(golden["student"]).to(GetParam()), teacher = table(golden["teacher"]);
  const auto n = static_cast<double>(student.size(0));
  const at::Tensor two_cells = at::tensor({0, 1, 1, 0}, at::kLong);
  for (const Json& c : golden["cases"]) {
    const auto options = divergence(c["loss"], c["parameter"], c["temperature"]);
    const double T = options.temperature;
    TeacherTargets targets = dense_targets(teacher);
    if (c["targets"] == "ghost") targets = ghost_targets(teacher, T, 2);
    if (c["targets"] == "cells") targets = partition_targets(teacher, T, 1, two_cells);
    if (c["targets"] == "zero") {
      targets = ghost_targets(teacher, T, 2);
      targets.partition.log_p = targets.partition.log_p.log_softmax(1);
      targets.partition.log_mass.fill_(-INFINITY);
    }
    const Loss loss = loss_of(student, targets, options);
    SCOPED_TRACE(c["loss"].get<std::string>() + " " + c["targets"].get<std::string>());
    EXPECT_EQ(loss.value.scalar_type(), GetParam());
    EXPECT_NEAR(loss.value.item<double>() / (T * T * n), c["value"].get<double>(), 1e-6);
    EXPECT_NEAR(loss.rows.divergence.mean().item<double>(), c["value"].get<double>(), 1e-6);
    EXPECT_LT(difference(loss.gradient / (T * T * n), table(c["gradient"])), 1e-6);
  }
}

/// The losses as the papers write them, by autograd over all logits.
at::Tensor unfused(const DivergenceOptions& o, const at::Tensor& p, const at::Tensor& q) {
  const std::string name = o.loss->name;
  const auto kl = [](const at::Tensor& a, const at::Tensor& b) { return (a * (a / b).log()).sum(); };
  const double k = o.parameter;
  if (name == "forward_kl") return kl(p, q);
  if (name == "reverse_kl") return kl(q, p);
  if (name == "jsd") return k * kl(p, k * p + (1 - k) * q) + (1 - k) * kl(q, k * p + (1 - k) * q);
  if (name == "skew_kl") return kl(p, k * p + (1 - k) * q);
  if (name == "skew_reverse_kl") return kl(q, (1 - k) * p + k * q);
  if (name == "tvd") return (p - q).abs().sum() / 2;
  if (name == "taid") {
    const at::Tensor target = q.detach().pow(1 - k) * p.pow(k);
    return kl(target / target.sum(1, true), q);
  }
  return (std::get<0>(p.sort(1)) - std::get<0>(q.sort(1))).abs().sum();
}

TEST(Divergence, EveryKindIsItsUnfusedSelfWithHeadCrossEntropyAndMaskedRows) {
  constexpr int64_t kVocab = 23, kDim = 7, kRows = 13;
  const at::Tensor weight = normal({kVocab, kDim}, 1), x = normal({kRows, kDim}, 2),
                   teacher = 2 * normal({kRows, kVocab}, 3);
  at::Tensor labels = at::arange(kRows, at::kLong);
  for (const int64_t r : {0, 5, 12}) labels[r] = -1;
  const at::Tensor rows = at::nonzero(labels >= 0).squeeze(1);
  const at::Tensor targets = teacher.index_select(0, rows);
  for (const double T : {1.0, 2.5})
    for (DivergenceOptions options : all_divergences(T, 0.7)) {
      options.kd_weight = 1.3;
      const Loss got = loss_of(head_of(weight), x, labels, dense_targets(targets), options);
      const at::Tensor leaf = x.clone().requires_grad_(true);
      const at::Tensor logits = leaf.matmul(weight.t()).index_select(0, rows);
      const at::Tensor cross_entropy =
          -at::log_softmax(logits, 1).gather(1, labels.index_select(0, rows).unsqueeze(1)).sum();
      const at::Tensor want =
          1.3 * T * T * unfused(options, at::softmax(targets / T, 1), at::softmax(logits / T, 1)) + 0.7 * cross_entropy;
      want.backward();
      EXPECT_NEAR(got.value.item<double>(), want.item<double>(), 1e-10) << options.loss->name;
      EXPECT_LT(difference(got.gradient, leaf.grad()), 1e-10) << options.loss->name << " " << T;
      EXPECT_EQ(got.gradient[5].abs().max().item<double>(), 0) << "a masked row has no gradient";
      EXPECT_NEAR(got.rows.cross_entropy.sum().item<double>(), cross_entropy.item<double>(), 1e-10);
    }
}

TEST(Divergence, EveryGradientEqualsDifferences) {
  constexpr int64_t kVocab = 9, kRows = 1;
  const at::Tensor student = normal({kRows, kVocab}, 4), teacher = 2 * normal({kRows, kVocab}, 5);
  const at::Tensor cell_of = at::arange(kVocab, at::kLong).remainder(3);
  const Linear head = no_head(kVocab);
  const at::Tensor label = at::zeros({kRows}, at::kLong);
  constexpr double h = 1e-5;
  for (const double T : {1.0, 2.0})
    for (DivergenceOptions options : all_divergences(T, 0.4)) {
      if (options.loss->interpolates) options.parameter = 1;  // below 1 the target moves, but has no gradient
      for (const TeacherTargets& targets :
           {dense_targets(teacher), ghost_targets(teacher, T, 3), partition_targets(teacher, T, 4, cell_of)}) {
        const Loss loss = loss_of(student, targets, options);
        const at::Tensor numeric = at::empty_like(student);
        for (int64_t i = 0; i < student.numel(); ++i) {
          const auto moved = [&](double by) {
            at::Tensor x = student.clone();
            x.view(-1)[i] += by;
            return linear_divergence(head, x, label, targets, options).item<double>();
          };
          numeric.view(-1)[i] = (moved(h) - moved(-h)) / (2 * h);
        }
        EXPECT_LT(difference(loss.gradient, numeric), 1e-6) << options.loss->name << " at T = " << T;
      }
    }
}

TEST(Divergence, LoopsAndOperatorsAgree) {
  constexpr int64_t kVocab = 301, kRows = 5;
  const at::Tensor cell_of = at::arange(kVocab, at::kLong).remainder(16);
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const double T : {1.0, 2.0})
      for (DivergenceOptions options : all_divergences(T, 0.4)) {
        if (!options.loss->cells) continue;  // has no loops
        at::Tensor student = 3 * normal({kRows, kVocab}, 6), teacher = 3 * normal({kRows, kVocab}, 7);
        student.slice(1, 290) = -INFINITY, teacher.slice(1, 280) = -INFINITY;
        Partition partition = partition_targets(teacher, T, 8, cell_of).partition;
        partition.ids[2].slice(0, 5).fill_(-1);  // as few tokens as a position needs
        partition.ids[3].fill_(-1);
        for (const bool dense : {true, false}) {
          at::Tensor out[2];
          DivergenceChunk chunk[2];
          for (const int way : {0, 1}) {
            chunk[way] = {.logits = student.to(type).clone(),
                          .labels = at::arange(kRows, at::kLong),
                          .dense = dense ? teacher.to(type) : at::Tensor(),
                          .partition = partition,
                          .measured = at::empty({kRows, kMeasured}, at::kDouble)};
            (way ? divergence_by_operators : divergence_by_loops)(chunk[way], options);
          }
          const double tolerance = type == at::kFloat ? 2e-5 : 1e-11;
          EXPECT_LT(difference(chunk[0].measured, chunk[1].measured), tolerance) << options.loss->name << dense;
          EXPECT_LT(difference(chunk[0].logits, chunk[1].logits), tolerance) << options.loss->name << dense;
        }
      }
}

TEST(Divergence, MeasuresAgreementAndTheTail) {
  const at::Tensor teacher = at::tensor({3., 0., 0., 1., 0., 2., 0., 0., 0., 0., 0., 3.}, at::kDouble).view({3, 4});
  const at::Tensor student = at::tensor({2., 0., 1., 0., 0., 0., 2., 0., 1., 0., 0., 2.}, at::kDouble).view({3, 4});
  const at::Tensor p = at::softmax(teacher, 1);
  for (const bool dense : {true, false}) {
    const Loss loss =
        loss_of(student, dense ? dense_targets(teacher) : ghost_targets(teacher, 1, 1), divergence("forward_kl"));
    EXPECT_TRUE(at::equal(loss.rows.agrees, at::tensor({1., 0., 1.}, at::kDouble)));
    const at::Tensor tail = 1 - std::get<0>(p.max(1)),
                     q_tail = 1 - at::softmax(student, 1).gather(1, p.argmax(1, true)).squeeze(1);
    EXPECT_LT(difference(loss.rows.tail_mass, dense ? at::zeros_like(tail) : tail), 1e-6);
    EXPECT_LT(difference(loss.rows.tail_divergence, dense ? at::zeros_like(tail) : tail * (tail / q_tail).log()), 1e-6);
  }
}

}  // namespace
}  // namespace retort
