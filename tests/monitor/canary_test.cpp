// What canaries say of another deployment, against the divergence over the whole vocabulary.
#include "monitor/canary.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/chat_template.h"
#include "tests/monitor/changed_model.h"

namespace retort {
namespace {

const std::string kKey = "the project's key, 32 bytes long";

/// Log-probabilities f64 [V] of what follows a user's message.
at::Tensor next(ServedModel& model, const std::string& text) {
  const std::vector<Message> messages = {{"user", text}};
  const std::vector<int32_t> ids = smollm2().encode(ChatTemplate(smollm2(), "", 0).render(messages, true), true, true);
  const std::vector<int64_t> last = {static_cast<int64_t>(ids.size()) - 1};
  return model.logits(ids, last)[0].to(at::kDouble).log_softmax(0);
}

/// KL(p || q) over all tokens, and over p's most probable ones and the others as one.
std::pair<double, double> divergences(const at::Tensor& log_p, const at::Tensor& log_q) {
  const at::Tensor p = log_p.exp(), q = log_q.exp();
  const auto [values, top] = log_p.topk(Canaries::kTop);
  const at::Tensor p_top = p.index_select(0, top), q_top = q.index_select(0, top);
  const double p_rest = 1 - p_top.sum().item<double>(), q_rest = 1 - q_top.sum().item<double>();
  return {(p * (log_p - log_q)).sum().item<double>(),
          (p_top * (p_top / q_top).log()).sum().item<double>() + p_rest * std::log(p_rest / q_rest)};
}

TEST(Canaries, DivergeAsTheWholeVocabularyDoes) {
  const TemporaryFolder folder;
  const auto changed = changed_model(
      folder, "sharper.gguf", [](GgufWriter&) {},
      [](const std::string& name, at::Tensor& tensor) {
        if (name == "output_norm.weight") tensor *= 1.5;  // every logit
      });
  const auto model = ServedModel::open(smollm2_path(), {.exact = true}),
             other = ServedModel::open(changed, {.exact = true});
  const std::vector<std::string> texts(canary_texts().begin(), canary_texts().begin() + 5);
  const Canaries before = ask_canaries(*model, smollm2(), texts, kKey);
  EXPECT_LT(divergence(before, *model, smollm2(), texts, kKey).mean, 1e-9);
  const CanaryDivergence found = divergence(before, *other, smollm2(), texts, kKey);
  double whole = 0, coarse = 0, largest = 0, turned = 0;
  const double count = static_cast<double>(texts.size());
  for (const std::string& text : texts) {
    const at::Tensor p = next(*model, text), q = next(*other, text);
    const auto [all, top] = divergences(p, q);
    whole += all / count;
    coarse += top / count;
    largest = std::max(largest, top);
    turned += divergences(q, p).second / count;
  }
  EXPECT_NEAR(found.mean, coarse, 1e-6 * coarse);
  EXPECT_NEAR(found.largest, largest, 1e-6 * largest);
  EXPECT_LE(found.mean, whole);
  EXPECT_GT(found.mean, 0.8 * whole);
  EXPECT_GT(std::abs(turned / coarse - 1), 0.05) << "the two directions are too alike to tell apart";
  // The profile holds no token ids, and keeps its figures through its file.
  const Canaries read = Canaries::from_json(parse_json(before.to_json().dump(), "c"), "c");
  EXPECT_EQ(divergence(read, *other, smollm2(), texts, kKey).mean, found.mean);
}

TEST(Canaries, OtherTextsAreRefused) {
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  const std::vector<std::string> texts = {"One.", "Two."}, others = {"One.", "Three."};
  const Canaries before = ask_canaries(*model, smollm2(), texts, kKey);
  ASSERT_EQ(before.top.size(), 2u);
  EXPECT_EQ(before.top[0].size(), static_cast<size_t>(Canaries::kTop));
  expect_error(Exit::bad_input, {"other canaries"}, [&] { divergence(before, *model, smollm2(), others, kKey); });
  expect_error(Exit::bad_input, {"other canaries"},
               [&] { divergence(before, *model, smollm2(), texts, "another key"); });
}

}  // namespace
}  // namespace retort
