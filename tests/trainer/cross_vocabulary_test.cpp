// Losses across vocabularies: values and gradients against formulas written out, and a whole step on two tokenizers.
#include "trainer/cross_vocabulary.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"
#include "tests/data/smollm2.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

/// The formula, a span at a time, by autograd.
at::Tensor written_out(const at::Tensor& logits, const at::Tensor& labels, const SpanTargets& targets) {
  const at::Tensor log_q = at::log_softmax(logits, -1);
  at::Tensor sum = at::zeros({}, logits.options());
  for (size_t s = 0; s + 1 < targets.offsets.size(); ++s) {
    at::Tensor log_span = at::zeros({}, logits.options());
    for (int64_t i = targets.offsets[s]; i < targets.offsets[s + 1]; ++i) {
      const int64_t row = targets.rows[static_cast<size_t>(i)];
      log_span = log_span + log_q[row][labels[row].item<int64_t>()];
    }
    const double p = std::exp(targets.log_p[static_cast<int64_t>(s)].item<double>());
    const at::Tensor q = log_span.exp();
    sum = sum + p * (std::log(p) - q.log()) + (1 - p) * (std::log(1 - p) - (1 - q).log());
  }
  return sum;
}

void check_spans(bool adapted, int64_t chunk) {
  const auto model = tiny_model("grouped", at::kDouble);
  if (adapted) attach_random(*model, [](const std::string& name) { return name == "lm_head"; });
  Linear& head = *model->linears().back();
  at::manual_seed(3);
  const at::Tensor labels = at::randint(head.out, {9}, at::kLong);
  const SpanTargets targets{{0, 1, 3, 4, 5, 8}, {0, 2, 3, 5, 6}, at::tensor({-0.7, -0.01, -4.0, -1.5}, at::kDouble)};
  const at::Tensor start = at::randn({9, head.in}, at::kDouble);
  auto gradient = [&](bool fused) {
    const at::Tensor hidden = start.clone().requires_grad_(true);
    const at::Tensor loss = fused ? linear_span_divergence(head, hidden, labels, targets, chunk)
                                  : written_out(model->logits(hidden), labels, targets);
    (loss * 3).backward();
    std::vector<at::Tensor> all = {loss.detach(), hidden.grad()};
    if (adapted)
      for (at::Tensor& one : take_gradients(*model)) all.push_back(one);
    return all;
  };
  const auto got = gradient(true), want = gradient(false);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(relative(got[i], want[i]), 1e-9) << i << " chunk " << chunk;
  const at::NoGradGuard no_grad;
  EXPECT_LT(relative(linear_span_divergence(head, start, labels, targets, chunk), want[0]), 1e-9);
}

TEST(SpanDivergence, IsItsFormulaForAnyChunk) {
  for (const int64_t chunk : {1, 2, 3, 256}) check_spans(false, chunk);
}

TEST(SpanDivergence, TrainsTheHeadsAdapter) {
  for (const int64_t chunk : {2, 256}) check_spans(true, chunk);
}

TEST(SpanDivergence, IsFiniteWhereAProbabilityIsOneOrNone) {
  const auto model = tiny_model("grouped", at::kFloat);
  const Linear& head = *model->linears().back();
  const at::Tensor hidden = (at::randn({4, head.in}) * 1000).requires_grad_(true);
  const at::Tensor top = head_logits(head, hidden.detach()).argmax(-1);
  const SpanTargets targets{{0, 1, 2}, {0, 1, 2, 3}, at::tensor({0.0, -300.0, -0.5}, at::kDouble)};
  const at::Tensor loss = linear_span_divergence(head, hidden, top, targets);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_TRUE(at::isfinite(hidden.grad()).all().item<bool>());
  const SpanTargets none{{}, {0}, at::zeros({0}, at::kDouble)};
  EXPECT_EQ(linear_span_divergence(head, hidden, top, none).item<double>(), 0);
}

/// Logits that depend on nothing but the place: the teacher's probabilities can be written down.
class PlaceTeacher final : public Teacher {
 public:
  explicit PlaceTeacher(int64_t vocab) : vocab_(vocab) {}
  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return vocab_; }
  at::Tensor row(int64_t position) const { return at::sin(at::arange(vocab_, at::kFloat) * (1 + position)) * 2; }
  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    asked += static_cast<int>(documents.size());
    for (size_t d = 0; d < documents.size(); ++d) {
      std::vector<at::Tensor> rows;
      for (int64_t t : wanted[d]) rows.push_back(row(t));
      if (!rows.empty()) each(d, at::stack(rows));
    }
  }
  int asked = 0;

 private:
  int64_t vocab_;
  TeacherIdentity identity_;
};

const std::string student_template =
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

/// A student that reads bytes and a teacher that reads SmolLM2's tokens, each with its own template.
class Pairs : public testing::Test {
 protected:
  Pairs() : mine_(bytes_, student_template), theirs_(smollm2()) {}
  PairedTexts paired(std::vector<Chat> chats, const EncodeOptions& options = {}) {
    Stream<Chat> stream = [chats, i = size_t{0}](Chat& chat) mutable {
      if (i >= chats.size()) return false;
      chat = chats[i++];
      return true;
    };
    return PairedTexts(stream, {bytes_, mine_}, {smollm2(), theirs_}, options);
  }
  Batch batch_of(const std::vector<Chat>& chats) {
    std::vector<int64_t> ids, labels;
    Batch batch{{}, {}, {0}};
    Ledger ledger;
    for (const Chat& chat : chats) {
      const auto example = encode(bytes_, mine_, chat, {}, ledger);
      for (size_t t = 0; t < example->ids.size(); ++t) {
        ids.push_back(example->ids[t]);
        const bool trained = t + 1 < example->ids.size() && example->trained[t + 1];
        labels.push_back(trained ? example->ids[t + 1] : -1);
      }
      batch.offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.labels = at::tensor(labels, at::kLong);
    return batch;
  }
  FakeTokenizer bytes_;
  ChatTemplate mine_, theirs_;
  std::vector<Chat> chats_ = {
      {"a:1", "", {{"user", "What is Unix?"}, {"assistant", "An operating system."}}, "", {}},
      {"a:2", "", {{"user", "And caf\xC3\xA9?"}, {"assistant", "Na\xC3\xAFve \xE2\x82\xAC."}}, "", {}},
      {"a:3", "", {}, "Plain text, read by both.", {}}};
};

TEST_F(Pairs, AnswersAreAlignedWhateverTheTemplates) {
  PairedTexts texts = paired(chats_);
  const Batch batch = batch_of(chats_);
  PlaceTeacher teacher(49152);
  const SpanSource source = span_targets(teacher, texts);
  const SpanTargets targets = source(batch);
  EXPECT_EQ(teacher.asked, 3);
  source(batch);
  EXPECT_EQ(teacher.asked, 3) << "each document is asked about once";
  EXPECT_EQ(texts.trained_tokens(), (batch.labels >= 0).sum().item<int64_t>());
  // All of both answers with their ends; of the text what comes after the teacher's first token, which nothing
  // predicts.
  const auto before = static_cast<int64_t>(smollm2().piece(smollm2().encode(chats_[2].text, false)[0]).size());
  EXPECT_EQ(texts.aligned_tokens(), texts.trained_tokens() - (before - 1));
  ASSERT_EQ(static_cast<int64_t>(targets.rows.size()), texts.aligned_tokens());
  for (int64_t row : targets.rows) EXPECT_GE(batch.labels[row].item<int64_t>(), 0);

  // The first span's probability: the teacher's first token of the first answer.
  Ledger ledger;
  const auto example = encode(smollm2(), theirs_, chats_[0], {}, ledger);
  const auto first = std::find(example->trained.begin(), example->trained.end(), 1) - example->trained.begin();
  const at::Tensor log_p = at::log_softmax(teacher.row(first - 1), -1);
  EXPECT_NEAR(targets.log_p[0].item<double>(), log_p[example->ids[static_cast<size_t>(first)]].item<double>(), 1e-4);
  EXPECT_EQ(targets.offsets[1], static_cast<int64_t>(smollm2().piece(example->ids[static_cast<size_t>(first)]).size()))
      << "a byte vocabulary has as many tokens in a span as it has bytes";
}

TEST_F(Pairs, RankedTargetsHoldTheTeachersGreatestProbabilities) {
  PairedTexts texts = paired(chats_);
  const Batch batch = batch_of({chats_[1]});
  PlaceTeacher teacher(49152);
  const RankedTargets ranked = ranked_targets(teacher, texts, bytes_.size(), 2.0, 16)(batch);
  ASSERT_EQ(ranked.targets.rows, (ranked.labels >= 0).sum().item<int64_t>());
  const Partition& partition = ranked.targets.partition;
  ASSERT_EQ(partition.log_p.sizes(), at::IntArrayRef({ranked.targets.rows, 16}));
  const at::Tensor all = at::cat({partition.log_p, partition.log_mass}, 1).exp().sum(1);
  EXPECT_LT((all - 1).abs().max().item<double>(), 1e-4);
  Ledger ledger;
  const auto example = encode(smollm2(), theirs_, chats_[1], {}, ledger);
  const auto first = std::find(example->trained.begin(), example->trained.end(), 1) - example->trained.begin();
  const at::Tensor want = std::get<0>(at::log_softmax(teacher.row(first - 1) / 2, -1).topk(16));
  EXPECT_LT((partition.log_p[0] - want).abs().max().item<double>(), 1e-5);
  EXPECT_LT(ranked.targets.rows, (batch.labels >= 0).sum().item<int64_t>()) << "bytes inside tokens are left out";
}

TEST_F(Pairs, ATeacherWithoutATemplateReadsParagraphs) {
  const ChatTemplate paragraphs = reading_template(bytes_);
  EXPECT_EQ(paragraphs.render(chats_[0].messages, false), "What is Unix?\nAn operating system.</s>\n");
  EXPECT_EQ(reading_template(smollm2()).source(), theirs_.source());
  Stream<Chat> one = [this, sent = false](Chat& chat) mutable {
    chat = chats_[1];
    return !std::exchange(sent, true);
  };
  const PairedTexts texts(one, {smollm2(), theirs_}, {bytes_, paragraphs}, {});
  EXPECT_EQ(texts.aligned_tokens(), texts.trained_tokens()) << "the whole answer and its end";
}

TEST_F(Pairs, TruncatedRowsAlignAsFarAsTheyGo) {
  EncodeOptions options;
  options.max_length = 40;
  PairedTexts texts = paired({chats_[0]}, options);
  EXPECT_GT(texts.aligned_tokens(), 0);
  EXPECT_LT(texts.aligned_tokens(), 20);
  EXPECT_EQ(texts.find(std::vector<int32_t>{1, 2, 3}), nullptr);
}

TEST_F(Pairs, PartsTrainAndAreMeasured) {
  PairedTexts texts = paired(chats_);
  PlaceTeacher teacher(49152);
  Batch batch = batch_of(chats_);
  const auto model = tiny_model("grouped", at::kFloat);
  batch.ids.remainder_(model->config().vocab);  // the tiny model has fewer tokens than bytes
  for (const bool spans : {true, false}) {
    const auto state = std::make_shared<ObjectiveState>();
    const Batch real = batch_of(chats_);
    const SpanSource span_source = span_targets(teacher, texts);
    const RankedSource ranked_source = ranked_targets(teacher, texts, model->config().vocab, 2.0, 16);
    const int64_t vocab = model->config().vocab;
    const ObjectivePart part =
        spans ? spans_part([&](const Batch&) { return span_source(real); }, 0.5, state)
              : uld_part(
                    [&](const Batch&) {
                      RankedTargets ranked = ranked_source(real);
                      ranked.labels = at::where(ranked.labels < 0, ranked.labels, ranked.labels.remainder(vocab));
                      return ranked;
                    },
                    0.5, 2.0, state);
    batch.labels = at::where(real.labels < 0, real.labels, real.labels.remainder(vocab));
    attach_random(*model, [](const std::string&) { return true; });
    const Objective objective = sum_of({part, cross_entropy_part(0.5)});
    const at::Tensor loss = objective(*model, batch, {}, {.training = true});
    loss.backward();
    const double measured = state->sums.at(spans ? "span_divergence" : "divergence");
    const double cross_entropy =
        sum_of({cross_entropy_part(0.5)})(*model, batch, {}, {.training = true}).item<double>();
    EXPECT_GT(measured, 0);
    EXPECT_NEAR(loss.item<double>(), 0.5 * (spans ? 1 : 4) * measured + cross_entropy, 1e-3) << "T² of uld is 4";
    double size = 0;
    for (const at::Tensor& gradient : take_gradients(*model)) size += gradient.abs().sum().item<double>();
    EXPECT_GT(size, 0);
    EXPECT_TRUE(std::isfinite(size));
    EXPECT_GT(state->sums.at(spans ? "spans" : "aligned"), 10);
    detach_all(*model);
  }
}

}  // namespace
}  // namespace retort
