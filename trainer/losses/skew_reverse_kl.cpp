// Skewed reverse KL (https://arxiv.org/abs/2402.03898): KL(q ‖ (1 - lambda) p + lambda q), at most -log lambda.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_skew_reverse_kl{
    .name = "skew_reverse_kl",
    .summary = "KL(student ‖ (1 - lambda) teacher + lambda student)",
    .parameter = {.name = "lambda", .usual = 0.1, .lowest = 0, .highest = 0.99},
    .cells = &mixture_cells,
    .coefficients =
        [](double lambda) {
          return LossCoefficients{0, 1, 1 - lambda};
        },
    .needs_support = [](double lambda) { return lambda == 0; },
};

}  // namespace retort
