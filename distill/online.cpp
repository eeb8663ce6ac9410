#include "distill/online.h"

#include <ATen/ATen.h>

namespace retort {

TargetSource online_targets(Teacher& teacher) {
  return [&teacher](const Batch& batch, std::span<const int64_t>) {
    const at::Tensor trained = at::nonzero(batch.labels >= 0).squeeze(1).cpu();
    const std::vector<int64_t> rows(trained.const_data_ptr<int64_t>(),
                                    trained.const_data_ptr<int64_t>() + trained.size(0));
    TeacherTargets targets;
    targets.rows = trained.size(0);
    if (targets.rows > 0) targets.dense = teacher.dense(batch, rows);
    return targets;
  };
}

}  // namespace retort
