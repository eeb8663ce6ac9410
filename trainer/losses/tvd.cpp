// Total variation distance, sum |p - q| / 2, between 0 and 1.
#include "trainer/loss_cells.h"

namespace retort {
namespace {

struct Formula {
  template <typename X, typename S>
  RETORT_INLINE static Term<X> term(const X&, const X&, const X& p, const X& q, const std::array<S, 3>&) {
    const X difference = (q - p) * S(0.5), sign = sign_of(difference);
    return {difference * sign, q * sign * S(0.5)};
  }
};

RETORT_CELL_LOOPS(Formula)

constexpr CellLoops loops{cells_f32, cells_f64, cells_tensors};

}  // namespace

extern const LossKind loss_tvd{
    .name = "tvd",
    .summary = "half the sum of the differences of the probabilities",
    .cells = &loops,
};

}  // namespace retort
