// How much is answered.
#include "monitor/signal.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  if (!input.row.answer) return std::nullopt;
  return static_cast<double>(input.row.answer->size());
}

}  // namespace

extern const SignalKind signal_answer_length{
    .summary = "bytes of the answer",
    .unit = "bytes",
    .number = number,
};

}  // namespace retort
