// How surprising the champion finds the text. Bytes, not tokens: comparable whatever the tokenizer makes of it.
#include <numbers>

#include "monitor/signal.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  if (input.predicted_bytes < 1) return std::nullopt;
  return -input.log_p / std::numbers::ln2 / static_cast<double>(input.predicted_bytes);
}

}  // namespace

extern const SignalKind signal_bits_per_byte{
    .summary = "bits a byte of what was asked, under the champion",
    .unit = "bits/byte",
    .asks_model = true,
    .number = number,
};

}  // namespace retort
