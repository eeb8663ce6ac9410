// AdamW's update, for the kinds that use it on some of their parameters.
#pragma once

#include "trainer/optimizer.h"

namespace retort {

/// On parameters whose state begins with the first and the second moment, in the parameter's type.
void adamw_update(const UpdateGroup& group, const TrainOptions& options);

}  // namespace retort
