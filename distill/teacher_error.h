// How far a quantized teacher is from its own file of higher precision: what the student cannot learn from it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "distill/teacher.h"

namespace retort {

struct TeacherError {
  int64_t positions = 0;
  double mean_kl = 0, p99_kl = 0;  ///< KL(reference || teacher), nats
  double agreement = 0;            ///< share of positions where both think the same token most probable
  Json to_json() const;
};

/// Both are asked about every position of the documents, one document at a time. Error(bad_input) when their
/// vocabularies are of different sizes.
TeacherError teacher_error(Teacher& teacher, Teacher& reference, const std::vector<std::vector<int32_t>>& documents);

}  // namespace retort
