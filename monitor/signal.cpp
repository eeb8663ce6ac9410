#include "monitor/signal.h"

namespace retort {

#define KIND(name) extern const SignalKind signal_##name;
#include "signal_kinds.inc"
#undef KIND

const std::map<std::string, const SignalKind*>& signal_kinds() {
  static const std::map<std::string, const SignalKind*> kinds = {
#define KIND(name) {#name, &signal_##name},
#include "signal_kinds.inc"
#undef KIND
  };
  return kinds;
}

}  // namespace retort
