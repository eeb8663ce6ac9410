// Answers that go round in circles.
#include "monitor/signal.h"
#include "monitor/text_metrics.h"

namespace retort {
namespace {

std::optional<double> number(const SignalInput& input) {
  if (!input.row.answer) return std::nullopt;
  const NgramCounts grams = ngrams_of_words(*input.row.answer, 4);
  if (grams.total == 0) return std::nullopt;
  return 1 - static_cast<double>(grams.distinct) / static_cast<double>(grams.total);
}

}  // namespace

extern const SignalKind signal_repetition{
    .summary = "share of an answer's runs of four words that it has already had",
    .unit = "share",
    .number = number,
};

}  // namespace retort
