// How far a file of each type may be from the trained model; docs/gate.md says what the numbers rest on.
#include <algorithm>
#include <cmath>

#include "export/gate.h"
#include "export/types.h"

namespace retort {
namespace {

struct TypeLimit {
  const char* type;
  double max_kl;  ///< mean, nats
};

/// One and a half to two and a half times what SmolLM2-135M measures (docs/gate.md). A small model whose rows of 576 do
/// not fit K-blocks is close to the worst case. Q4_1, Q5_1, Q5_K_M and Q5_K_S are judged by an untuned model: over a
/// base of Q4_1 they round most of the training away, which is to be refused.
constexpr TypeLimit kLimits[] = {
    {"F32", 1e-5},   {"F16", 5e-5},    {"BF16", 1e-3},   {"Q8_0", 0.015}, {"MXFP4_MOE", 0.1}, {"Q6_K", 0.035},
    {"Q5_1", 0.24},  {"Q5_K_M", 0.24}, {"Q5_K_S", 0.24}, {"Q5_0", 0.35},  {"Q4_1", 0.4},      {"Q4_K_M", 0.18},
    {"Q4_K_S", 0.5}, {"IQ4_NL", 0.6},  {"IQ4_XS", 0.6},  {"Q4_0", 0.9},   {"Q3_K_L", 1.0},    {"Q3_K_M", 1.0},
    {"Q3_K_S", 1.3}, {"IQ3_M", 1.0},   {"IQ3_S", 1.0},   {"IQ3_XS", 1.0}, {"IQ3_XXS", 1.0},   {"Q2_K", 2.0},
    {"Q2_K_S", 2.0}, {"IQ2_M", 2.0},   {"IQ2_S", 2.0},   {"IQ2_XS", 2.0}, {"IQ2_XXS", 2.0},
};
constexpr double kOfOneBit = 3.0;  ///< the rest, which only refuses what is broken

}  // namespace

GateLimits gate_limits(const std::string& type, std::optional<double> max_kl, std::optional<double> min_top1) {
  const std::string name = gguf_type(type).name;
  const auto known =
      std::find_if(std::begin(kLimits), std::end(kLimits), [&](const TypeLimit& l) { return name == l.type; });
  GateLimits limits;
  limits.max_kl = max_kl.value_or(known == std::end(kLimits) ? kOfOneBit : known->max_kl);
  // The rest follows from it by what was measured on every type that is not refused: the 99th percentile is 4 to 11
  // times the mean, the share of positions whose most likely token changes 0.44 to 0.65 times the root of the mean.
  limits.max_kl_p99 = 10 * limits.max_kl;
  limits.min_top1 = min_top1.value_or(std::max(0.0, 1 - 0.8 * std::sqrt(limits.max_kl)));
  // log p of one token changes by about sqrt(2 KL). Most of it can have one direction: up to 1.25 sqrt(KL) was
  // measured.
  limits.max_log_perplexity = std::sqrt(2 * limits.max_kl);
  return limits;
}

}  // namespace retort
