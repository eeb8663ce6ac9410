// Skewed KL (https://arxiv.org/abs/2402.03898): KL(p ‖ lambda p + (1 - lambda) q). Its gradient stays bounded where q
// is small.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_skew_kl{
    .name = "skew_kl",
    .summary = "KL(teacher ‖ lambda teacher + (1 - lambda) student)",
    .parameter = {.name = "lambda", .usual = 0.1, .lowest = 0, .highest = 0.99},
    .cells = &mixture_cells,
    .coefficients =
        [](double lambda) {
          return LossCoefficients{1, 0, lambda};
        },
};

}  // namespace retort
