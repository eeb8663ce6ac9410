// A model behind a service as a teacher: what it said of its own answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "data/encode.h"
#include "distill/targets.h"
#include "distill/teacher.h"

namespace retort {

struct RecordedCounts {
  int64_t answers = 0, trained_tokens = 0;
  /// Trained tokens that the recorded log-probabilities say something about; the others have cross entropy alone.
  int64_t aligned_tokens = 0;
};

struct RecordedTeacher {
  TeacherIdentity identity;  ///< hash: of the file; engine: the model's name as the service gives it
  RecordedCounts counts;
  /// Sparse targets at temperature 1: the top tokens that the student has as well, and one cell for the rest. A
  /// position that is not aligned, and a document that was not recorded, has all mass in that cell: no divergence, no
  /// gradient.
  TargetSource targets;
};

/// Reads the answers as the student is trained on them. A student's token is aligned when recorded tokens cover exactly
/// its bytes: with one, its alternatives count too; with several, the product of their probabilities. Holds about 170
/// bytes a token in memory. `width` is the student's vocabulary. Errors as read_recorded() and encode() throw them.
RecordedTeacher open_recorded(const std::filesystem::path& path, const Tokenizer& tokenizer,
                              const ChatTemplate& chat_template, const EncodeOptions& options, int64_t width);

}  // namespace retort
