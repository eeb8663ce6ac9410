// Into how many tokens a word falls: words that the tokenizer was not made for fall into more.
#include <sstream>

#include "monitor/signal.h"

namespace retort {
namespace {

// Of the text that the tokens cover, not of what was cut off.
std::optional<double> number(const SignalInput& input) {
  std::istringstream text(input.tokenizer.decode(input.ids));
  int64_t words = 0;
  for (std::string word; text >> word;) ++words;
  if (words == 0) return std::nullopt;
  return static_cast<double>(input.ids.size()) / static_cast<double>(words);
}

}  // namespace

extern const SignalKind signal_fertility{
    .summary = "tokens a word",
    .unit = "tokens/word",
    .number = number,
};

}  // namespace retort
