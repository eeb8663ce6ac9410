// Generalized Jensen-Shannon divergence (https://arxiv.org/abs/2306.13649): beta KL(p ‖ m) + (1 - beta) KL(q ‖ m) with
// m = beta p + (1 - beta) q. It vanishes with beta, and JSD(beta) / beta tends to KL(p ‖ q); likewise at 1. At beta 0
// and 1 themselves it is those limits, KL(p ‖ q) and KL(q ‖ p), as in TRL.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_jsd{
    .name = "jsd",
    .summary = "Jensen-Shannon divergence; beta 0 is forward_kl, 1 is reverse_kl",
    .parameter = {.name = "beta", .usual = 0.5, .lowest = 0, .highest = 1},
    .cells = &mixture_cells,
    .coefficients =
        [](double beta) {
          if (beta == 0) return LossCoefficients{1, 0, 0};
          if (beta == 1) return LossCoefficients{0, 1, 1};
          return LossCoefficients{beta, 1 - beta, beta};
        },
    .needs_support = [](double beta) { return beta == 1; },
};

}  // namespace retort
