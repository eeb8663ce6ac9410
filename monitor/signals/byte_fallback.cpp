// Tokens that hold only a part of a character: what the vocabulary has no token for is spelled byte by byte.
#include "data/text_input.h"
#include "monitor/signal.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  int64_t parts = 0;
  for (int32_t id : input.ids) parts += invalid_utf8(input.tokenizer.piece(id)).has_value();
  return static_cast<double>(parts) / static_cast<double>(input.ids.size());
}

}  // namespace

extern const SignalKind signal_byte_fallback{
    .summary = "share of tokens that are a part of a character",
    .unit = "share",
    .number = number,
};

}  // namespace retort
