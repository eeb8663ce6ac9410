// KL(p ‖ q) = sum p log(p / q): the student covers all that the teacher does. It contains -H(p), so it is 0 when they
// agree; gradient q - p.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_forward_kl{
    .name = "forward_kl",
    .summary = "KL(teacher ‖ student)",
    .cells = &mixture_cells,
    .coefficients =
        [](double) {
          return LossCoefficients{1, 0, 0};
        },
};

}  // namespace retort
