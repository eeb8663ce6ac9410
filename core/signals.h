// Ctrl-C and SIGTERM ask a run to stop at the next good moment.
#pragma once

namespace retort {

/// From now on the first SIGINT or SIGTERM only sets a flag; a second one ends the process at once. Called by cli.
void catch_stop_signals();

/// The signal that came, 0 when none has. Cheap: the trainer polls it after every step, downloads after every block.
int stop_signal();

}  // namespace retort
