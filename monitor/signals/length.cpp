// How much is asked.
#include "monitor/signal.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) { return static_cast<double>(input.row.text.size()); }

}  // namespace

extern const SignalKind signal_length{
    .summary = "bytes of what was asked",
    .unit = "bytes",
    .number = number,
};

}  // namespace retort
