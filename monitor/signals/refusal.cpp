// Answers that decline.
#include "monitor/signal.h"
#include "monitor/text_metrics.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  if (!input.row.answer) return std::nullopt;
  return is_refusal(*input.row.answer) ? 1 : 0;
}

}  // namespace

extern const SignalKind signal_refusal{
    .summary = "share of answers with a phrase of refusal (English)",
    .unit = "share",
    .yes_no = true,
    .number = number,
};

}  // namespace retort
