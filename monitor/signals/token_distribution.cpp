// Which tokens occur, and how often.
#include "monitor/signal.h"

namespace retort {
namespace {

std::vector<int32_t> tokens(const SignalInput& input) { return {input.ids.begin(), input.ids.end()}; }

}  // namespace

extern const SignalKind signal_token_distribution{
    .summary = "how often each token occurs",
    .unit = "tokens",
    .tokens = tokens,
};

}  // namespace retort
