// What a step must never hold: the logits of all tokens, and the gradient of a frozen head.
#include <gtest/gtest.h>

#include "core/memory.h"
#include "models/cross_entropy.h"
#include "models/linear.h"

namespace retort {
namespace {

TEST(CrossEntropyMemory, NeverHoldsTokensTimesVocabularyNorTheHeadsGradient) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what was freed";
#endif
  constexpr int64_t kTokens = 4096, kVocab = 20'000, kDim = 64;
  const at::Tensor weight = at::rand({kVocab, kDim}) - 0.5;
  Linear head{.name = "lm_head", .in = kDim, .out = kVocab, .weight = FrozenMatrix(weight), .bias = {}, .adapter = {}};
  const at::Tensor labels = at::randint(kVocab, {kTokens}, at::kLong);
  const auto step = [&](int64_t tokens) {
    const at::Tensor x = at::rand({tokens, kDim}).requires_grad_();
    linear_cross_entropy(head, x, labels.slice(0, 0, tokens)).backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  };
  step(512);  // threads, kernels and two chunks' buffers
  reset_peak_resident_bytes();
  const auto before = static_cast<int64_t>(peak_resident_bytes());
  step(kTokens);
  EXPECT_FALSE(weight.grad().defined());
  // All logits would be 328 MB.
  EXPECT_LT(static_cast<int64_t>(peak_resident_bytes()) - before, 60'000'000);
}

}  // namespace
}  // namespace retort
