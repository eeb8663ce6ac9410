// Recorded answers as a teacher: their log-probabilities land on the student's tokens, and nothing else does.
#include "distill/recorded.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/json.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

Json token(const std::string& text, double log_p, const std::vector<std::pair<std::string, double>>& top = {}) {
  Json list = Json::array();
  for (const auto& [other, other_log_p] : top) list.push_back({{"token", other}, {"logprob", other_log_p}});
  return {{"token", text}, {"logprob", log_p}, {"top_logprobs", list}};
}

/// The student's tokens of an answer, as text.
std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::string> all;
  for (int32_t id : tokenizer.encode(text, false)) all.push_back(tokenizer.piece(id));
  return all;
}

class RecordedTargets : public testing::Test {
 protected:
  RecordedTargets() : template_(smollm2()) {}
  RecordedTeacher open(const std::vector<Json>& lines, const EncodeOptions& options = {}) {
    std::string text;
    for (const Json& line : lines) text += line.dump() + "\n";
    write_atomic(folder_ / "answers.jsonl", text);
    return open_recorded(folder_ / "answers.jsonl", smollm2(), template_, options, 49152);
  }
  Batch batch_of(const std::string& question, const std::string& answer) {
    Ledger ledger;
    const auto example =
        encode(smollm2(), template_, {"", "", {{"user", question}, {"assistant", answer}}, "", {}}, {}, ledger);
    std::vector<int64_t> ids(example->ids.begin(), example->ids.end()), labels(ids.size(), -1);
    for (size_t t = 0; t + 1 < ids.size(); ++t)
      if (example->trained[t + 1]) labels[t] = ids[t + 1];
    return {at::tensor(ids, at::kLong), at::tensor(labels, at::kLong), {0, static_cast<int64_t>(ids.size())}};
  }
  /// The row's mass by token; -1: the cell of all others.
  static std::map<int64_t, double> row(const TeacherTargets& targets, int64_t r) {
    std::map<int64_t, double> mass = {{-1, targets.partition.log_mass[r][0].exp().item<double>()}};
    for (int64_t i = 0; i < targets.partition.ids.size(1); ++i)
      if (const auto id = targets.partition.ids[r][i].item<int32_t>(); id >= 0)
        mass[id] = targets.partition.log_p[r][i].exp().item<double>();
    return mass;
  }
  ChatTemplate template_;
  TemporaryFolder folder_;
};

TEST_F(RecordedTargets, LandOnTheStudentsTokens) {
  const std::string answer = "A daemon waits.";
  const std::vector<std::string> mine = pieces(smollm2(), answer);
  ASSERT_EQ(mine, (std::vector<std::string>{"A", " da", "emon", " waits", "."})) << "the case below needs these";
  // " daemon" is two tokens of the student: not aligned. " wa" + "its" is one: the product of both. "zzqq" is none.
  const RecordedTeacher teacher =
      open({{{"prompt", "What?"},
             {"model", "big-1"},
             {"completion", answer},
             {"logprobs",
              {{"content",
                {token("A", -0.5, {{"A", -0.5}, {"The", -1.5}, {"zzqq", -3}}), token(" daemon", -1),
                 token(" wa", -0.25), token("its", -0.5), token(".", -0.01, {{"!", -5}})}}}}}});
  EXPECT_EQ(teacher.identity.engine, "big-1");
  EXPECT_EQ(teacher.counts.answers, 1);
  EXPECT_EQ(teacher.counts.trained_tokens, 6);
  EXPECT_EQ(teacher.counts.aligned_tokens, 3);
  const TeacherTargets targets = teacher.targets(batch_of("What?", answer), {});
  ASSERT_EQ(targets.rows, 6);
  const auto ids = smollm2().encode(answer, false);
  const int32_t the = smollm2().encode("The", false)[0];
  const auto first = row(targets, 0);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_NEAR(first.at(ids[0]), std::exp(-0.5), 1e-6);
  EXPECT_NEAR(first.at(the), std::exp(-1.5), 1e-6);
  EXPECT_NEAR(first.at(-1), 1 - std::exp(-0.5) - std::exp(-1.5), 1e-6);
  for (const int64_t unknown : {1, 2, 5}) {  // " da", "emon", and the end of the turn
    const auto mass = row(targets, unknown);
    EXPECT_EQ(mass.size(), 1u);
    EXPECT_EQ(mass.at(-1), 1) << "nothing is known";
  }
  EXPECT_NEAR(row(targets, 3).at(ids[3]), std::exp(-0.75), 1e-6);
  EXPECT_EQ(row(targets, 3).size(), 2u);
  EXPECT_NEAR(row(targets, 4).at(ids[4]), std::exp(-0.01), 1e-6);
}

TEST_F(RecordedTargets, DocumentsThatWereNotRecordedHaveNoDivergence) {
  const RecordedTeacher teacher = open({{{"prompt", "What?"}, {"completion", "Yes."}}});
  EXPECT_EQ(teacher.counts.aligned_tokens, 0);
  for (const char* answer : {"Yes.", "Something else."}) {
    const TeacherTargets targets = teacher.targets(batch_of("What?", answer), {});
    EXPECT_GT(targets.rows, 0);
    EXPECT_TRUE((targets.partition.log_mass == 0).all().item<bool>());
    EXPECT_TRUE((targets.partition.ids == -1).all().item<bool>());
  }
}

TEST_F(RecordedTargets, OfAnAnswerThatWasCutOffAreNotAnEarlierOnes) {
  const Json chat = {{"messages",
                      {{{"role", "user"}, {"content", "Is it?"}},
                       {{"role", "assistant"}, {"content", "Yes"}},
                       {{"role", "user"}, {"content", "Are you really sure that it is?"}}}},
                     {"completion", "Yes"},
                     {"logprobs", {{"content", {token("Yes", -0.4)}}}}};
  const RecordedTeacher whole = open({chat});
  EXPECT_EQ(whole.counts.aligned_tokens, 1);
  int64_t trained_of_a_part = 0;
  for (EncodeOptions options; options.max_length > 0; --options.max_length) {
    if (options.max_length > 64) options.max_length = 64;
    const RecordedCounts counts = open({chat}, options).counts;
    if (counts.trained_tokens == whole.counts.trained_tokens) continue;
    trained_of_a_part = std::max(trained_of_a_part, counts.trained_tokens);
    EXPECT_LE(counts.aligned_tokens, counts.trained_tokens > 2 ? 1 : 0) << options.max_length;
    if (counts.trained_tokens <= 2) break;
  }
  EXPECT_GT(trained_of_a_part, 0) << "the first answer was left";
}

TEST_F(RecordedTargets, MassesSumToOne) {
  const RecordedTeacher teacher =
      open({{{"prompt", "What?"},
             {"completion", "Yes"},
             {"logprobs", {{"content", {token("Yes", -0.4, {{"Yes", -0.4}, {"No", -1.1}, {"The", -5}})}}}}}});
  const TeacherTargets targets = teacher.targets(batch_of("What?", "Yes"), {});
  double sum = 0;
  for (const auto& [id, mass] : row(targets, 0)) sum += mass;
  EXPECT_NEAR(sum, 1, 1e-6) << "the service's sum is above one";
}

}  // namespace
}  // namespace retort
