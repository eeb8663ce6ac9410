#include "trainer/loss.h"

#include "core/error.h"
#include "core/schema.h"
#include "trainer/loss_cells.h"

namespace retort {

#define KIND(name) extern const LossKind loss_##name;
#include "loss_kinds.inc"
#undef KIND

namespace {

struct MixtureFormula {
  template <typename X, typename S>
  RETORT_INLINE static Term<X> term(const X& log_p, const X& log_q, const X& p, const X& q, const std::array<S, 3>& k) {
    const X m = p * k[2] + q * (1 - k[2]);
    const X log_m = log_of(m);
    const X p_part = p * k[0], q_part = q * k[1], log_ratio = q_part * (log_q - log_m);
    return {p_part * (log_p - log_m) + log_ratio, log_ratio + q_part - (p_part + q_part) * (1 - k[2]) * q / m};
  }
};

RETORT_CELL_LOOPS(MixtureFormula)

}  // namespace

extern const CellLoops mixture_cells{cells_f32, cells_f64, cells_tensors};

const std::vector<const LossKind*>& loss_kinds() {
  static const std::vector<const LossKind*> kinds = {
#define KIND(name) &loss_##name,
#include "loss_kinds.inc"
#undef KIND
  };
  return kinds;
}

const LossKind& loss_kind(const std::string& name) {
  for (const LossKind* kind : loss_kinds())
    if (name == kind->name) return *kind;
  fail(Exit::usage, "loss: {}", not_among(name, loss_names()));
}

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const LossKind* kind : loss_kinds()) names.emplace_back(kind->name);
  return names;
}

}  // namespace retort
