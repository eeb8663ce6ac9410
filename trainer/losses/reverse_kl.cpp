// KL(q ‖ p) = sum q log(q / p): the student keeps to what the teacher finds likely.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_reverse_kl{
    .name = "reverse_kl",
    .summary = "KL(student ‖ teacher)",
    .cells = &mixture_cells,
    .coefficients =
        [](double) {
          return LossCoefficients{0, 1, 1};
        },
    .needs_support = [](double) { return true; },
};

}  // namespace retort
