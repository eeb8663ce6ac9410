// Temporally adaptive interpolated distillation (https://arxiv.org/abs/2501.16937): KL(p_t ‖ q) against a target that
// moves from the student to the teacher, p_t = softmax((1 - t) z_student + t z_teacher) without gradient. TaidSchedule
// (trainer/distillation.h) moves t from t_start to 1. On a partition p_t of a cell is Q^(1-t) P^t, normalized: inside a
// cell the student keeps its own shape.
#include "trainer/loss.h"

namespace retort {

extern const LossKind loss_taid{
    .name = "taid",
    .summary = "KL(target ‖ student); the target moves from the student to the teacher",
    .parameter = {.name = "t_start", .usual = 0.4, .lowest = 0, .highest = 1},
    .cells = &mixture_cells,
    .coefficients =
        [](double) {
          return LossCoefficients{1, 0, 0};
        },
    .interpolates = true,
};

}  // namespace retort
