// Teachers that are asked while the student trains.
#pragma once

#include "distill/targets.h"
#include "distill/teacher.h"

namespace retort {

/// The teacher's whole distribution at a batch's trained positions, computed when it is asked for; rows x vocabulary
/// never exists. The teacher must outlive the source and what it gives.
TargetSource online_targets(Teacher& teacher);

}  // namespace retort
