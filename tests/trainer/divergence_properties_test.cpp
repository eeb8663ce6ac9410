// What must hold of every loss whatever its numbers are, and what must never be in memory.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/memory.h"
#include "tests/models/tiny.h"
#include "tests/trainer/divergence.h"

namespace retort {
namespace {

constexpr int64_t kVocab = 37, kRows = 9;
const at::Tensor& student() {
  static const at::Tensor logits = 2 * normal({kRows, kVocab}, 11);
  return logits;
}
const at::Tensor& teacher() {
  static const at::Tensor logits = 2 * normal({kRows, kVocab}, 12);
  return logits;
}
at::Tensor cells() { return at::arange(kVocab, at::kLong).remainder(5); }

/// Every divergence, which are the kinds that compare token by token.
std::vector<DivergenceOptions> divergences() {
  std::vector<DivergenceOptions> all = all_divergences();
  std::erase_if(all, [](const DivergenceOptions& o) { return !o.loss->cells; });
  return all;
}

void expect_same(const Loss& a, const Loss& b, double tolerance, const std::string& what) {
  EXPECT_NEAR(a.value.item<double>(), b.value.item<double>(), tolerance) << what;
  EXPECT_LT(difference(a.gradient, b.gradient), tolerance) << what;
}

TEST(Divergence, ChunksChangeNothing) {
  const at::Tensor weight = normal({kVocab, 6}, 1), x = normal({kRows, 6}, 2);
  at::Tensor labels = at::arange(kRows, at::kLong);
  labels[4] = -1;
  const at::Tensor told = at::cat({teacher().slice(0, 0, 4), teacher().slice(0, 5)});
  for (DivergenceOptions options : all_divergences(2, 0.5))
    for (const TeacherTargets& targets : {dense_targets(told), partition_targets(told, 2, 3, cells())}) {
      const Loss whole = loss_of(head_of(weight), x, labels, targets, options);
      for (const int64_t chunk : {1, 3, 7}) {
        options.chunk = chunk;
        const Loss parts = loss_of(head_of(weight), x, labels, targets, options);
        expect_same(parts, whole, 1e-12, options.loss->name);
        EXPECT_LT(difference(parts.rows.divergence, whole.rows.divergence), 1e-12);
      }
    }
}

TEST(Divergence, OfBf16StatesAndHeadIsF32ButForTheProducts) {
  constexpr int64_t kDim = 32;
  const at::Tensor weight = normal({kVocab, kDim}, 1, at::kBFloat16), x = normal({kRows, kDim}, 2, at::kBFloat16) / 3;
  const at::Tensor labels = at::arange(kRows, at::kLong);
  for (const double T : {1.0, 2.0})
    for (const DivergenceOptions& options : all_divergences(T, 0.5))
      for (const TeacherTargets& targets : {dense_targets(teacher()), partition_targets(teacher(), T, 3, cells())}) {
        const Loss exact = loss_of(head_of(weight.to(at::kDouble)), x.to(at::kDouble), labels, targets, options);
        const Loss loss = loss_of(head_of(weight), x, labels, targets, options);
        EXPECT_EQ(loss.value.scalar_type(), at::kFloat);
        EXPECT_EQ(loss.gradient.scalar_type(), at::kBFloat16);
        // Logits and their gradients are rounded to 8 bits once each, nothing in between is.
        EXPECT_NEAR(loss.value.item<double>() / exact.value.item<double>(), 1, 4e-3) << options.loss->name << T;
        if (!options.loss->cells) continue;  // uld's gradient jumps where two probabilities change places
        const at::Tensor error = loss.gradient.to(at::kDouble) - exact.gradient;
        EXPECT_LT((error.norm() / exact.gradient.norm()).item<double>(), 2e-2) << options.loss->name << T;
      }
}

TEST(Divergence, MicroBatchesAddUp) {
  const at::Tensor labels = at::zeros({kRows}, at::kLong);
  for (const DivergenceOptions& options : all_divergences(1, 0.5)) {
    const Loss whole = loss_of(student(), dense_targets(teacher()), options);
    const Loss first = loss_of(student().slice(0, 0, 4), dense_targets(teacher().slice(0, 0, 4)), options);
    const Loss second = loss_of(student().slice(0, 4), dense_targets(teacher().slice(0, 4)), options);
    const Loss sum{.value = first.value + second.value, .gradient = at::cat({first.gradient, second.gradient})};
    expect_same(sum, whole, 1e-12, options.loss->name);
  }
}

TEST(Divergence, OrderOfTokensDoesNotMatter) {
  auto generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  const at::Tensor order = at::randperm(kVocab, generator), back = order.argsort();
  const auto label = [&](int64_t token) { return at::full({kRows}, token, at::kLong); };
  for (const DivergenceOptions& options : all_divergences(1, 0.5)) {
    const Loss loss =
        loss_of(no_head(kVocab), student(), label(order[7].item<int64_t>()), dense_targets(teacher()), options);
    Loss moved = loss_of(no_head(kVocab), student().index_select(1, order), label(7),
                         dense_targets(teacher().index_select(1, order)), options);
    moved.gradient = moved.gradient.index_select(1, back);
    expect_same(moved, loss, 1e-12, options.loss->name);
  }
}

TEST(Divergence, PaddingTheVocabularyChangesNothing) {
  const auto padded = [](const at::Tensor& logits) { return at::constant_pad_nd(logits, {0, 64}, -INFINITY); };
  const at::Tensor more_cells = at::constant_pad_nd(cells(), {0, 64}, 3);
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const DivergenceOptions& options : all_divergences(2, 0.5))
      for (const bool dense : {true, false}) {
        const auto loss = [&](const at::Tensor& s, const at::Tensor& t, const at::Tensor& cell_of) {
          Linear wide = head_of(at::constant_pad_nd(at::eye(kVocab, type), {0, 0, 0, s.size(1) - kVocab}));
          if (s.size(1) > kVocab) wide.bias = padded(at::zeros({kVocab}, type));
          return loss_of(wide, s.slice(1, 0, kVocab).to(type), at::zeros({kRows}, at::kLong),
                         dense ? dense_targets(t) : partition_targets(t, 2, 3, cell_of), options);
        };
        expect_same(loss(padded(student()), padded(teacher()), more_cells), loss(student(), teacher(), cells()),
                    type == at::kFloat ? 2e-5 : 1e-9, options.loss->name);
      }
}

TEST(Divergence, FiniteWhereTheTeacherHasNoMass) {
  at::Tensor lost = teacher().clone();
  lost.slice(1, 20) = -INFINITY;
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const DivergenceOptions& options : divergences())
      for (const TeacherTargets& targets : {dense_targets(lost), ghost_targets(lost, 1, 20)}) {
        const Loss loss = loss_of(student().to(type), targets, options);
        EXPECT_TRUE(loss.value.isfinite().item<bool>() && loss.gradient.isfinite().all().item<bool>())
            << options.loss->name;
        const double bound = options.loss->needs_support(options.parameter) ? 87 : 6;
        EXPECT_LT(loss.rows.divergence.max().item<double>(), bound) << options.loss->name;
      }
}

TEST(Divergence, CoarserPartitionsAreNeverAbove) {
  // Nested: the ghost merges the cells, the cells merge tokens.
  for (const DivergenceOptions& options : divergences()) {
    if (options.loss->interpolates) continue;  // its target depends on the partition
    const auto rows = [&](const TeacherTargets& targets) {
      return loss_of(student(), targets, options).rows.divergence;
    };
    const at::Tensor full = rows(dense_targets(teacher())),
                     clustered = rows(partition_targets(teacher(), 1, 3, cells())),
                     ghost = rows(ghost_targets(teacher(), 1, 3));
    EXPECT_TRUE((ghost <= clustered + 1e-6).all().item<bool>()) << options.loss->name;
    EXPECT_TRUE((clustered <= full + 1e-6).all().item<bool>()) << options.loss->name;
    EXPECT_GT((full - clustered).max().item<double>(), 1e-3) << options.loss->name;
    EXPECT_GT((clustered - ghost).max().item<double>(), 1e-3) << options.loss->name;
    EXPECT_GE(ghost.min().item<double>(), -1e-6) << options.loss->name;
  }
}

TEST(Divergence, AllTokensButOneAreTheWhole) {
  const auto one_each = at::arange(kVocab, at::kLong);
  for (const DivergenceOptions& options : all_divergences(2, 0.3)) {
    const Loss full = loss_of(student(), dense_targets(teacher()), options);
    expect_same(loss_of(student(), ghost_targets(teacher(), 2, kVocab - 1), options), full, 2e-6, options.loss->name);
    if (options.loss->cells)
      expect_same(loss_of(student(), partition_targets(teacher(), 2, 2, one_each), options), full, 2e-6,
                  options.loss->name);
  }
}

TEST(Divergence, JensenShannonIsSymmetricAndHasBothLimits) {
  const auto value = [](const at::Tensor& s, const at::Tensor& t, const char* loss, double beta) {
    return loss_of(s, dense_targets(t), divergence(loss, beta)).value.item<double>();
  };
  EXPECT_NEAR(value(student(), teacher(), "jsd", 0.5), value(teacher(), student(), "jsd", 0.5), 1e-12);
  EXPECT_GT(std::abs(value(student(), teacher(), "jsd", 0.2) - value(teacher(), student(), "jsd", 0.2)), 1e-2);
  const double forward = value(student(), teacher(), "forward_kl", 0),
               reverse = value(student(), teacher(), "reverse_kl", 0);
  EXPECT_NEAR(value(student(), teacher(), "jsd", 1e-7) / 1e-7, forward, 1e-2);
  EXPECT_NEAR(value(student(), teacher(), "jsd", 1 - 1e-7) / 1e-7, reverse, 1e-2);
  EXPECT_NEAR(value(student(), teacher(), "jsd", 0), forward, 1e-12);
  EXPECT_NEAR(value(student(), teacher(), "jsd", 1), reverse, 1e-12);
  EXPECT_NEAR(value(student(), teacher(), "skew_kl", 0), forward, 1e-12);
  EXPECT_NEAR(value(student(), teacher(), "skew_reverse_kl", 0), reverse, 1e-12);
}

TEST(Divergence, HotForwardKlTendsToTheLogitsMeanSquare) {
  const at::Tensor gap = student() - teacher(), centred = gap - gap.mean(1, true);
  const double limit = 0.5 * centred.square().mean(1).sum().item<double>();
  const auto at_temperature = [&](double T) {
    return loss_of(student(), dense_targets(teacher()), divergence("forward_kl", 0, T)).value.item<double>();
  };
  EXPECT_NEAR(at_temperature(3000), limit, 1e-2 * limit);
  EXPECT_LT(std::abs(at_temperature(3000) - limit), std::abs(at_temperature(300) - limit));
}

TEST(Divergence, UldComparesVocabulariesOfDifferentSizes) {
  const auto options = divergence("uld");
  for (const int64_t size : {20, 37, 60}) {
    const at::Tensor other = 2 * normal({kRows, size}, 13);
    const int64_t width = std::max(size, kVocab);
    const auto sorted = [&](const at::Tensor& logits) {
      const at::Tensor p = at::softmax(logits, 1);
      return std::get<0>(at::constant_pad_nd(p, {0, width - p.size(1)}).sort(1));
    };
    const at::Tensor leaf = student().clone().requires_grad_(true);
    const at::Tensor want = (sorted(leaf) - sorted(other)).abs().sum();
    want.backward();
    const Loss got = loss_of(student(), dense_targets(other), options);
    EXPECT_NEAR(got.value.item<double>(), want.item<double>(), 1e-12);
    EXPECT_LT(difference(got.gradient, leaf.grad()), 1e-12);
    const Loss few = loss_of(student(), ghost_targets(other, 1, 4), options);
    EXPECT_LE(few.value.item<double>(), want.item<double>() + 1e-6) << "ranks that are not told apart";
  }
}

TEST(Divergence, HeadsWithAdaptersAreTrainedInOnePass) {
  const at::Tensor weight = normal({kVocab, 6}, 1), a = normal({3, 6}, 2), b = normal({kVocab, 3}, 3),
                   x = normal({kRows, 6}, 4);
  for (DivergenceOptions options : all_divergences(1, 0.5)) {
    options.chunk = 4;
    Linear head = head_of(weight);
    const auto lora = std::make_shared<TestLora>(a.clone(), b.clone());
    head.adapter = lora;
    lora->a.mutable_grad() = at::ones_like(a);  // of an earlier micro-batch
    int64_t asked = 0;
    TeacherTargets targets = dense_targets(teacher());
    targets.dense = [&asked, all = targets.dense](int64_t begin, int64_t end) {
      EXPECT_EQ(begin, asked) << "rows are asked for once, in order";
      asked = end;
      return all(begin, end);
    };
    const at::Tensor leaf = x.clone().requires_grad_(true);
    (linear_divergence(head, leaf, at::zeros({kRows}, at::kLong), targets, options) / 5).backward();
    EXPECT_EQ(asked, kRows);

    // By the logits' gradient, which other tests prove, and autograd.
    const at::Tensor free_a = a.clone().requires_grad_(true), free_b = b.clone().requires_grad_(true),
                     free_x = x.clone().requires_grad_(true);
    const at::Tensor logits = free_x.matmul((weight + 2 * free_b.matmul(free_a)).t());
    logits.backward(loss_of(logits.detach(), dense_targets(teacher()), options).gradient / 5);
    EXPECT_LT(difference(leaf.grad(), free_x.grad()), 1e-12) << options.loss->name;
    EXPECT_LT(difference(lora->a.grad(), free_a.grad() + 1), 1e-12) << options.loss->name;
    EXPECT_LT(difference(lora->b.grad(), free_b.grad()), 1e-12) << options.loss->name;
  }
}

TEST(Divergence, NotANumberIsNeverSilent) {
  for (const DivergenceOptions& options : all_divergences(1, 0.5)) {
    for (const int64_t place : {int64_t{0}, kVocab - 1}) {
      at::Tensor bad = student().clone();
      bad[2][place] = NAN;
      EXPECT_TRUE(loss_of(bad, dense_targets(teacher()), options).value.isnan().item<bool>()) << options.loss->name;
      EXPECT_TRUE(loss_of(bad, ghost_targets(teacher(), 1, 3), options).value.isnan().item<bool>());
      EXPECT_TRUE(loss_of(student(), dense_targets(bad), options).value.isnan().item<bool>()) << options.loss->name;
    }
    TeacherTargets targets = ghost_targets(teacher(), 1, 3);
    targets.partition.log_p[1][2] = NAN;
    EXPECT_TRUE(loss_of(student(), targets, options).value.isnan().item<bool>()) << options.loss->name;
    targets = ghost_targets(teacher(), 1, 3);
    targets.partition.log_mass[1][0] = NAN;
    EXPECT_TRUE(loss_of(student(), targets, options).value.isnan().item<bool>()) << options.loss->name;
  }
}

TEST(Divergence, RefusesTargetsThatDoNotFit) {
  const auto says = [](const TeacherTargets& targets, const std::string& words) {
    try {
      loss_of(student(), targets, divergence("forward_kl"));
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  says(dense_targets(teacher().slice(0, 1)), "8 rows for 9 trained tokens");
  says(dense_targets(teacher().slice(1, 1)), "logits of 36 tokens, but the student's head has 37");
  const auto with = [](const std::function<void(Partition&)>& change) {
    TeacherTargets targets = partition_targets(teacher(), 1, 3, cells());
    change(targets.partition);
    return targets;
  };
  says(with([](Partition& p) { p.ids[8][2] = kVocab; }), "token 37, but the student's head has 37");
  says(with([](Partition& p) { p.cell_of[36] = 5; }), "a token lies in cell 5, and there are 5");
  says(with([](Partition& p) { p.cell_of = p.cell_of.slice(0, 1); }), "cells of 36 tokens");
  says(with([](Partition& p) { p.log_p = p.log_p.slice(1, 1); }), "differ in number");
  says(with([](Partition& p) { p.log_mass = p.log_mass.slice(0, 1); }), "one row a trained token");
  EXPECT_THROW(loss_kind("forward_ld"), Error);
}

TEST(Divergence, AFrozenHeadGetsNoGradient) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what was freed";
#endif
  constexpr int64_t tokens = 16, dim = 128;
  const auto step = [&](const at::Tensor& weight) {
    const int64_t words = weight.size(0);
    const Linear head = head_of(weight);
    const at::Tensor x = at::rand({tokens, dim}).requires_grad_(), labels = at::randint(words, {tokens}, at::kLong);
    TeacherTargets targets = partition_targets(at::randn({1, words}), 2, 8, at::arange(words, at::kLong).remainder(16));
    targets.rows = tokens;
    for (at::Tensor* t : {&targets.partition.ids, &targets.partition.log_p, &targets.partition.log_mass})
      *t = t->expand({tokens, -1});
    DivergenceOptions options = divergence("jsd", 0.5, 2, 0.5);
    options.chunk = 8;
    linear_divergence(head, x, labels, targets, options).backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
    EXPECT_FALSE(weight.grad().defined());
  };
  step(at::rand({1000, dim}).requires_grad_());  // threads and kernels; what it freed is too small for the gradient
  const at::Tensor weight = (at::rand({200'000, dim}) - 0.5).requires_grad_();  // autograd would train it
  reset_peak_resident_bytes();
  const auto before = static_cast<int64_t>(peak_resident_bytes());
  step(weight);
  // The gradient would be 102 MB.
  EXPECT_LT(static_cast<int64_t>(peak_resident_bytes()) - before, 50'000'000);
}

TEST(Divergence, NeverHoldsTokensTimesVocabulary) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what was freed";
#endif
  constexpr int64_t kTokens = 4096, kWords = 20'000, kDim = 64;
  const at::Tensor weight = at::rand({kWords, kDim}) - 0.5;
  const Linear head = head_of(weight);
  const at::Tensor cell_of = at::arange(kWords, at::kLong).remainder(16), logits = at::randn({default_chunk, kWords});
  const auto step = [&](int64_t tokens, bool dense) {
    const at::Tensor x = at::rand({tokens, kDim}).requires_grad_(), labels = at::randint(kWords, {tokens}, at::kLong);
    TeacherTargets targets = partition_targets(logits.slice(0, 0, 1), 2, 8, cell_of);
    targets.rows = tokens;
    for (at::Tensor* t : {&targets.partition.ids, &targets.partition.log_p, &targets.partition.log_mass})
      *t = t->expand({tokens, -1});
    if (dense) targets.dense = [&](int64_t begin, int64_t end) { return logits.slice(0, 0, end - begin); };
    linear_divergence(head, x, labels, targets, divergence("jsd", 0.5, 2, 0.5)).backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  };
  for (const bool dense : {false, true}) {
    step(512, dense);  // threads, kernels and two chunks' buffers
    reset_peak_resident_bytes();
    const auto before = static_cast<int64_t>(peak_resident_bytes());
    step(kTokens, dense);
    // All logits would be 328 MB, of the student alone.
    EXPECT_LT(static_cast<int64_t>(peak_resident_bytes()) - before, 60'000'000) << dense;
  }
}

}  // namespace
}  // namespace retort
