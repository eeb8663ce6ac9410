// Teachers: what they answer is what their engine answers, they are named by what they are, and a model that is lent
// comes back as it was.
#include "distill/teacher.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "distill/online.h"
#include "distill/torch_teacher.h"
#include "models/served.h"
#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"
#include "tests/data/smollm2.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

using Documents = std::vector<std::vector<int32_t>>;
using Positions = std::vector<std::vector<int64_t>>;

std::vector<at::Tensor> answers(Teacher& teacher, const Documents& documents, const Positions& wanted) {
  std::vector<at::Tensor> all(documents.size());
  size_t last = 0;
  teacher.logits(documents, wanted, [&](size_t document, const at::Tensor& logits) {
    EXPECT_GE(document, last) << "in the documents' order";
    last = document;
    all[document] = logits.clone();
  });
  return all;
}

/// Mean KL of the second from the first, nats.
double mean_kl(const at::Tensor& p, const at::Tensor& q) {
  const at::Tensor a = at::log_softmax(p.to(at::kDouble), -1), b = at::log_softmax(q.to(at::kDouble), -1);
  return (a.exp() * (a - b)).sum(-1).mean().item<double>();
}

class RealTeacher : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* text : {"A daemon is a program that waits in the background.", "Unix",
                             "The kernel schedules processes, and each of them has an address space of its own."})
      documents_.push_back(smollm2().encode(text, false));
    wanted_ = {{0, 3, 7}, {}, {2, 3, 4, 5, 6, 7, 8, 9}};
  }
  Documents documents_;
  Positions wanted_;
};

TEST_F(RealTeacher, GgufAnswersAsTheServedFile) {
  const OpenedTeacher teacher = open_teacher({.path = smollm2_path()});
  const TeacherIdentity& identity = teacher.model->identity();
  EXPECT_EQ(identity.hash.size(), 64u);
  EXPECT_EQ(identity.quantization, "Q4_1");
  EXPECT_EQ(identity.tokenizer_hash, smollm2().hash());
  EXPECT_EQ(identity.engine, "llama.cpp");
  EXPECT_EQ(teacher.model->vocab(), 49152);
  EXPECT_EQ(teacher.tokenizer->hash(), smollm2().hash());

  const auto logits = answers(*teacher.model, documents_, wanted_);
  EXPECT_FALSE(logits[1].defined()) << "nothing was wanted of it";
  const auto served = ServedModel::open(smollm2_path());
  for (const size_t d : {0, 2}) {
    ASSERT_EQ(logits[d].sizes(), at::IntArrayRef({static_cast<int64_t>(wanted_[d].size()), 49152}));
    EXPECT_LT(mean_kl(served->logits(documents_[d], wanted_[d]), logits[d]), 1e-3) << d;
  }
}

TEST_F(RealTeacher, LibTorchAndLlamaCppAgree) {
  const OpenedTeacher torch = open_teacher({.kind = "huggingface", .path = smollm2_path()});
  const OpenedTeacher gguf = open_teacher({.kind = "gguf", .path = smollm2_path()});
  EXPECT_EQ(torch.model->identity().engine, "LibTorch");
  EXPECT_EQ(torch.model->identity().quantization, "Q4_1");
  EXPECT_EQ(torch.model->identity().tokenizer_hash, gguf.model->identity().tokenizer_hash);
  const auto a = answers(*torch.model, documents_, wanted_), b = answers(*gguf.model, documents_, wanted_);
  for (const size_t d : {0, 2}) EXPECT_LT(mean_kl(a[d], b[d]), 0.01) << "llama.cpp rounds activations to 8 bits";
}

/// The student of these tests: a tiny model with a LoRA.
struct Student {
  std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(tiny_folder("grouped"));
  std::unique_ptr<CausalLM> model = CausalLM::load(*checkpoint, {.base = BaseForm::dense, .dtype = at::kFloat});
  FakeTokenizer tokenizer;
  TeacherPlace place() { return {model.get(), checkpoint.get(), &tokenizer, {}}; }
};

at::Tensor all_logits(CausalLM& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  return model.logits(model.hidden(batch));
}

TEST(SelfTeacher, IsTheBaseAndGivesTheStudentBack) {
  Student student;
  const Batch batch = documents({7, 4}, student.model->config().vocab);
  const at::Tensor base = all_logits(*student.model, batch);
  const OpenedTeacher teacher = open_teacher({}, student.place());
  EXPECT_EQ(teacher.model->identity().hash, student.checkpoint->hash());
  attach_random(*student.model, [](const std::string&) { return true; });
  const at::Tensor adapted = all_logits(*student.model, batch);
  ASSERT_GT(relative(adapted, base), 0.01);

  const DenseLogits dense = teacher.model->dense(batch, {0, 2, 6, 7, 10});
  const at::Tensor want = base.index_select(0, at::tensor({0, 2, 6, 7, 10}));
  EXPECT_LT(relative(at::cat({dense(0, 3), dense(3, 5)}), want), 1e-5);
  EXPECT_LT(relative(dense(0, 5), want), 1e-5) << "a second time from the start";
  EXPECT_EQ(relative(all_logits(*student.model, batch), adapted), 0);

  // An exception in the middle of the teacher's forward.
  Batch wrong = batch;
  wrong.offsets = {0, 7, 99};
  EXPECT_ANY_THROW(teacher.model->dense(wrong, {0}));
  EXPECT_EQ(relative(all_logits(*student.model, batch), adapted), 0);
  loss_of(*student.model, batch).backward();
  EXPECT_FALSE(take_gradients(*student.model).empty());
}

TEST(SelfTeacher, IsTheBaseAlsoWhereTheEmbeddingIsTrained) {
  Student student;
  const Batch batch = documents({5}, student.model->config().vocab);
  const at::Tensor base = all_logits(*student.model, batch);
  const OpenedTeacher teacher = open_teacher({}, student.place());
  AdapterOptions options;
  options.target_modules = {.expression = "", .names = {"q_proj", "embed_tokens"}};
  attach(*student.model, options, 1);
  for (const Parameter& parameter : trainable_parameters(*student.model)) {
    const at::NoGradGuard no_grad;
    parameter.tensor.normal_();
  }
  ASSERT_GT(relative(all_logits(*student.model, batch), base), 0.01);
  EXPECT_LT(relative(teacher.model->dense(batch, {0, 1, 2, 3, 4})(0, 5), base), 1e-5);
}

TEST(SelfTeacher, WearsAnAdapterOfItsOwn) {
  Student student;
  const Batch batch = documents({5, 6}, student.model->config().vocab);
  AdapterOptions options;
  attach(*student.model, options, 1);
  for (const Parameter& parameter : trainable_parameters(*student.model)) {
    const at::NoGradGuard no_grad;
    parameter.tensor.normal_();
  }
  const at::Tensor tuned = all_logits(*student.model, batch);
  TemporaryFolder folder;
  save_peft(folder / "adapter", *student.model, options, {"", student.checkpoint->hash(), "", "", ""});
  attach(*student.model, options, 2);  // the student starts anew
  const at::Tensor fresh = all_logits(*student.model, batch);
  const int64_t bytes = student.model->weight_bytes();
  const OpenedTeacher teacher = open_teacher({.kind = "self", .adapter = folder / "adapter"}, student.place());
  EXPECT_NE(teacher.model->identity().hash, student.checkpoint->hash()) << "the adapter is part of what it is";
  EXPECT_EQ(relative(all_logits(*student.model, batch), fresh), 0);
  EXPECT_LT(relative(teacher.model->dense(batch, {0, 5, 10})(0, 3), tuned.index_select(0, at::tensor({0, 5, 10}))),
            1e-5);
  EXPECT_EQ(relative(all_logits(*student.model, batch), fresh), 0);
  EXPECT_EQ(student.model->weight_bytes(), bytes);
  expect_error(Exit::bad_input, {"adapter_config.json"},
               [&] { open_teacher({.kind = "self", .adapter = folder / "none"}, student.place()); });
  EXPECT_EQ(relative(all_logits(*student.model, batch), fresh), 0) << "also when the adapter is not there";
}

TEST(TorchTeacher, DocumentsOfSeveralForwardsComeInOrder) {
  Student student;
  CausalLM& model = *student.model;
  const auto teacher = torch_teacher(model, tiny_model("grouped", at::kFloat), {}, {}, "tiny");
  Documents some;
  Positions wanted;
  for (int32_t d = 0; d < 40; ++d) {  // more tokens than one forward takes
    some.emplace_back(30 + d, d % 10);
    wanted.push_back(d % 5 == 4 ? std::vector<int64_t>() : std::vector<int64_t>{1, 20 + d});
  }
  const auto logits = answers(*teacher, some, wanted);
  for (size_t d = 0; d < some.size(); ++d) {
    ASSERT_EQ(logits[d].defined(), !wanted[d].empty()) << d;
    if (wanted[d].empty()) continue;
    const Batch alone{at::tensor(some[d], at::kInt).to(at::kLong), {}, {0, static_cast<int64_t>(some[d].size())}};
    EXPECT_LT(relative(logits[d], all_logits(model, alone).index_select(0, at::tensor(wanted[d]))), 1e-5) << d;
  }
}

/// Answers with the document's last token and the position, so that tests can tell rows apart.
class CountingTeacher final : public Teacher {
 public:
  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return 3; }
  void logits(const Documents& documents, const Positions& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    calls += 1;
    for (const auto& positions : wanted) most_rows = std::max(most_rows, positions.size());
    for (size_t d = 0; d < documents.size(); ++d) {
      at::Tensor rows = at::zeros({static_cast<int64_t>(wanted[d].size()), 3});
      for (size_t i = 0; i < wanted[d].size(); ++i) {
        rows[static_cast<int64_t>(i)][0] = documents[d][static_cast<size_t>(wanted[d][i])];
        rows[static_cast<int64_t>(i)][1] = wanted[d][i];
      }
      each(d, rows);
    }
  }
  int calls = 0;
  size_t most_rows = 0;

 private:
  TeacherIdentity identity_;
};

TEST(Teacher, DenseHoldsAFewDocumentsAtATime) {
  const Batch batch = documents({300, 20, 400, 30, 200}, 50);
  CountingTeacher teacher;
  std::vector<int64_t> rows;
  for (int64_t t = 0; t < batch.tokens(); ++t)
    if (t % 3 != 1 && (t < 300 || t >= 320)) rows.push_back(t);
  const DenseLogits dense = teacher.dense(batch, rows);
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < count; begin += 100) {
    const at::Tensor chunk = dense(begin, std::min(count, begin + 100));
    ASSERT_EQ(chunk.size(0), std::min(count, begin + 100) - begin);
    for (int64_t i = 0; i < chunk.size(0); ++i) {
      const int64_t t = rows[static_cast<size_t>(begin + i)];
      ASSERT_EQ(chunk[i][0].item<float>(), static_cast<float>(batch.ids[t].item<int64_t>())) << t;
    }
  }
  EXPECT_EQ(teacher.calls, 3) << "documents of 300, 400 + 30 and 200 tokens";
}

TEST(Teacher, DenseGoesThroughALongDocumentInPieces) {
  const Batch batch = documents({20, 1300, 30}, 50);
  CountingTeacher teacher;
  std::vector<int64_t> rows = {3};
  for (int64_t t = 20; t < 1300; ++t)
    if (t < 40 || t > 700) rows.push_back(t);
  rows.push_back(1330);
  const DenseLogits dense = teacher.dense(batch, rows);
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < count; begin += 256) {
    const at::Tensor chunk = dense(begin, std::min(count, begin + 256));
    for (int64_t i = 0; i < chunk.size(0); ++i) {
      const int64_t t = rows[static_cast<size_t>(begin + i)], d = t < 20 ? 0 : t < 1320 ? 20 : 1320;
      ASSERT_EQ(chunk[i][0].item<float>(), static_cast<float>(batch.ids[t].item<int64_t>())) << t;
      ASSERT_EQ(chunk[i][1].item<float>(), static_cast<float>(t - d)) << t;
    }
  }
  EXPECT_EQ(teacher.calls, 5) << "20 tokens, three pieces, 30 tokens";
  EXPECT_LE(teacher.most_rows, 512);
}

TEST(Teacher, OnlineTargetsAreItsLogitsAtTheTrainedRows) {
  Student student;
  const Batch batch = documents({12, 9}, student.model->config().vocab);
  const OpenedTeacher teacher = open_teacher({}, student.place());
  const TeacherTargets targets = online_targets(*teacher.model)(batch, {});
  const at::Tensor rows = at::nonzero(batch.labels >= 0).squeeze(1);
  ASSERT_EQ(targets.rows, rows.size(0));
  EXPECT_LT(relative(targets.dense(0, targets.rows), all_logits(*student.model, batch).index_select(0, rows)), 1e-5);
  Batch untrained = batch;
  untrained.labels = at::full_like(batch.labels, -1);
  EXPECT_EQ(online_targets(*teacher.model)(untrained, {}).rows, 0);
}

TEST(Teacher, RefusesNaN) {
  at::Tensor logits = at::zeros({3, 5});
  logits[1][2] = NAN;
  expect_error(Exit::bad_input, {"teacher.gguf", "position 8", "document 4", "NaN"}, [&] {
    check_logits(logits, "teacher.gguf", 4, {7, 8, 9});
  });
  check_logits(at::full({1, 5}, 1.0), "teacher.gguf", 0, {0});
  logits = at::full({1, 5}, -INFINITY);
  expect_error(Exit::bad_input, {"no finite"}, [&] { check_logits(logits, "teacher.gguf", 0, {0}); });
}

TEST(Teacher, KindsAreFoundByTheirPath) {
  EXPECT_STREQ(teacher_kind({.path = "a/model.gguf"})->name, "gguf");
  EXPECT_STREQ(teacher_kind({.path = RETORT_GOLDEN})->name, "huggingface");
  EXPECT_STREQ(teacher_kind({})->name, "self");
  EXPECT_EQ(teacher_kind({.path = "answers.jsonl"}), nullptr);
  EXPECT_EQ(teacher_kind({.kind = "recorded"}), nullptr);
  expect_error(Exit::usage, {"\"ggfu\"", "gguf"}, [] { teacher_kind({.kind = "ggfu"}); });
  expect_error(Exit::usage, {"model.bin", "teacher.kind"}, [] { teacher_kind({.path = "model.bin"}); });
  expect_error(Exit::usage, {"no student"}, [] { open_teacher({}); });
  expect_error(Exit::usage, {"PEFT"},
               [] { open_teacher({.kind = "gguf", .path = smollm2_path(), .adapter = RETORT_GOLDEN}); });
}

}  // namespace
}  // namespace retort
