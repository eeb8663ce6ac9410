// What the text is about, as the champion sees it.
#include "monitor/signal.h"

namespace retort {
namespace {

std::vector<float> vector(const SignalInput& input) { return {input.state.begin(), input.state.end()}; }

}  // namespace

extern const SignalKind signal_embedding{
    .summary = "mean of the champion's final hidden states",
    .unit = "vector",
    .asks_model = true,
    .vector = vector,
};

}  // namespace retort
