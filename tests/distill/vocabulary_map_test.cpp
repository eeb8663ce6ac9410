// Vocabularies: equal, in another order, padded, of another size, and too different to be mapped.
#include "distill/vocabulary_map.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "distill/online.h"
#include "tests/core/support.h"

namespace retort {
namespace {

/// A tokenizer of which only the tokens count.
class Tokens final : public Tokenizer {
 public:
  explicit Tokens(std::vector<std::string> pieces, int32_t bos = -1, int32_t eos = -1)
      : pieces_(std::move(pieces)), bos_(bos), eos_(eos) {}
  std::vector<int32_t> encode(const std::string&, bool, bool) const override { return {}; }
  std::vector<int32_t> encode_after(const std::string&) const override { return {}; }
  std::string decode(std::span<const int32_t>, bool) const override { return ""; }
  std::string piece(int32_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  int64_t size() const override { return static_cast<int64_t>(pieces_.size()); }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  bool adds_bos() const override { return false; }
  bool adds_eos() const override { return false; }
  bool ends_generation(int32_t id) const override { return id == eos_; }
  std::string hash() const override { return ""; }
  std::string chat_template() const override { return ""; }

 private:
  std::vector<std::string> pieces_;
  int32_t bos_, eos_;
};

/// Row t of a document has the logits sin(1 + token + 3 i), i the teacher's ids.
class FormulaTeacher final : public Teacher {
 public:
  explicit FormulaTeacher(int64_t vocab) : vocab_(vocab) {}
  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return vocab_; }
  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    for (size_t d = 0; d < documents.size(); ++d) {
      std::vector<at::Tensor> rows;
      for (int64_t t : wanted[d])
        rows.push_back(at::sin(1 + documents[d].at(static_cast<size_t>(t)) + 3 * at::arange(vocab_, at::kFloat)));
      if (!rows.empty()) each(d, at::stack(rows));
    }
  }

 private:
  int64_t vocab_;
  TeacherIdentity identity_;
};

std::vector<std::string> letters(int n) {
  std::vector<std::string> pieces;
  for (int i = 0; i < n; ++i) pieces.push_back(fmt::format("t{}", i));
  return pieces;
}

at::Tensor answer(Teacher& teacher, const std::vector<int32_t>& document, int64_t position) {
  at::Tensor row;
  teacher.logits({document}, {{position}}, [&](size_t, const at::Tensor& logits) { row = logits[0].clone(); });
  return row;
}

TEST(VocabularyMap, EqualVocabulariesKeepTheirIds) {
  const VocabularyMap map = compare_vocabularies(Tokens(letters(20)), Tokens(letters(20)));
  EXPECT_EQ(map.match, VocabularyMatch::equal);
  EXPECT_EQ(map.missing + map.extra, 0);
  EXPECT_EQ(map.first_differences, "");
  std::vector<int32_t> same(20);
  std::iota(same.begin(), same.end(), 0);
  EXPECT_EQ(map.to_teacher, same);
}

TEST(VocabularyMap, PermutedIdsAreMapped) {
  std::vector<std::string> theirs = letters(20);
  std::reverse(theirs.begin(), theirs.end());
  VocabularyMap map = compare_vocabularies(Tokens(letters(20)), Tokens(theirs));
  EXPECT_EQ(map.match, VocabularyMatch::mapped);
  EXPECT_EQ(map.missing + map.extra, 0);
  EXPECT_NE(map.first_differences.find("0: \"t0\" here, \"t19\" there"), std::string::npos) << map.first_differences;
  const auto teacher = map_vocabulary(std::make_unique<FormulaTeacher>(20), std::move(map), 20);
  const at::Tensor row = answer(*teacher, {4, 7}, 1);  // the teacher reads 15, 12
  const at::Tensor want = at::sin(1 + 12 + 3 * at::arange(20, at::kFloat)).flip(0);
  EXPECT_LT((row - want).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(teacher->lost_mass(), 0);

  // The same through a batch.
  const Batch batch{at::tensor({4, 7, 9}, at::kLong), at::tensor({-1, 3, 5}, at::kLong), {0, 2, 3}};
  const TeacherTargets targets = online_targets(*teacher)(batch, {});
  ASSERT_EQ(targets.rows, 2);
  EXPECT_LT((targets.dense(0, 1)[0] - want).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(batch.ids[1].item<int64_t>(), 7) << "the batch keeps its ids";
}

TEST(VocabularyMap, PaddingAndTokensOfOneSideOnly) {
  std::vector<std::string> theirs = letters(300);
  theirs[3] = "elsewhere";
  VocabularyMap map = compare_vocabularies(Tokens(letters(290)), Tokens(theirs));
  EXPECT_EQ(map.match, VocabularyMatch::mapped);
  EXPECT_EQ(map.missing, 1);
  EXPECT_EQ(map.extra, 11);
  EXPECT_NE(map.summary().find("3: \"t3\" here, \"elsewhere\" there"), std::string::npos) << map.summary();
  const auto teacher = map_vocabulary(std::make_unique<FormulaTeacher>(320), std::move(map), 304);  // both are padded
  EXPECT_EQ(teacher->vocab(), 304);
  const at::Tensor row = answer(*teacher, {7}, 0), whole = at::sin(1 + 7 + 3 * at::arange(320, at::kFloat));
  ASSERT_EQ(row.size(0), 304);
  for (int64_t i = 0; i < 304; ++i) {
    if (i == 3 || i >= 290)
      EXPECT_EQ(row[i].item<float>(), -INFINITY) << i;
    else
      EXPECT_EQ(row[i].item<float>(), whole[i].item<float>()) << i;
  }
  // What follows the last row is nothing to the teacher, asked either way.
  EXPECT_TRUE(answer(*teacher, {7, 3}, 0).equal(row));
  const Batch batch{at::tensor({7, 3, 9, 3}, at::kLong), at::tensor({3, -1, 3, -1}, at::kLong), {0, 2, 4}};
  EXPECT_TRUE(online_targets(*teacher)(batch, {}).dense(0, 1)[0].equal(row));
  expect_error(Exit::bad_input, {"token 3", "position 1", "document 1"}, [&] {
    const Batch inside{batch.ids, at::tensor({3, -1, -1, 3}, at::kLong), {0, 2, 4}};
    online_targets (*teacher)(inside, {});
  });
  const double kept = row.exp().sum().item<double>() / whole.exp().sum().item<double>();
  EXPECT_NEAR(teacher->lost_mass(), 1 - kept, 1e-5);
  teacher->forget_lost_mass();
  EXPECT_EQ(teacher->lost_mass(), 0);
  answer(*teacher, {7}, 0);
  EXPECT_NEAR(teacher->lost_mass(), 1 - kept, 1e-5);
  expect_error(Exit::bad_input, {"token 3", "position 1", "document 0", "elsewhere"}, [&] {
    answer(*teacher, {7, 3}, 1);
  });
}

TEST(VocabularyMap, TextsThatSeveralTokensHaveAndSpecialTokensPairUp) {
  // A byte token and a character have the same text; BOS and EOS have other names here and there.
  const Tokens student({"<s>", "A", "b", "A", "</s>"}, 0, 4), teacher({"A", "<bos>", "A", "<eos>", "b"}, 1, 3);
  const VocabularyMap map = compare_vocabularies(student, teacher);
  EXPECT_EQ(map.to_teacher, (std::vector<int32_t>{1, 0, 4, 2, 3}));
  EXPECT_EQ(map.match, VocabularyMatch::mapped);
}

TEST(VocabularyMap, DifferentVocabulariesAreRefusedByName) {
  std::vector<std::string> theirs = letters(40);
  for (int i = 5; i < 15; ++i) theirs[static_cast<size_t>(i)] = fmt::format("\xC3\xA9{}", i);
  const VocabularyMap map = compare_vocabularies(Tokens(letters(40)), Tokens(theirs));
  EXPECT_EQ(map.match, VocabularyMatch::different);
  expect_error(Exit::bad_input,
               {"student.gguf", "teacher.gguf",
                "5: \"t5\" here, \"\xC3\xA9"
                "5\" there",
                "10 of the student's", "uld"},
               [&] { require_shared_tokens(map, "student.gguf", "teacher.gguf"); });
  require_shared_tokens(compare_vocabularies(Tokens(theirs), Tokens(theirs)), "a", "b");
}

}  // namespace
}  // namespace retort
