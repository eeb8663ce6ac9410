// The labelled sample: the only signal that says whether answers are right.
#include "data/text_input.h"
#include "monitor/signal.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  if (!input.row.answer || !input.row.label) return std::nullopt;
  return trim(*input.row.answer) == trim(*input.row.label) ? 1 : 0;
}

}  // namespace

extern const SignalKind signal_accuracy{
    .summary = "share of labelled answers that are the label, but for spaces around it",
    .unit = "share",
    .yes_no = true,
    .number = number,
};

}  // namespace retort
