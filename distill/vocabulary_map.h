// Which tokens of a teacher are which of the student's, by their text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "distill/teacher.h"

namespace retort {

enum class VocabularyMatch {
  equal,     ///< every id stands for the same token in both
  mapped,    ///< nearly all of the student's tokens are the teacher's too, under other ids or in another number
  different  ///< the two cut text differently: only losses across vocabularies fit (uld, spans)
};

struct VocabularyMap {
  VocabularyMatch match = VocabularyMatch::equal;
  int64_t student_size = 0, teacher_size = 0;  ///< tokens
  std::vector<int32_t> to_teacher;             ///< of each of the student's ids; -1: the teacher has no such token
  int64_t missing = 0;                         ///< tokens of the student that the teacher lacks: -inf
  int64_t extra = 0;                           ///< tokens of the teacher that the student lacks: their mass is lost
  std::string first_differences;               ///< "3: \"a\" here, \"b\" there; ...", a few; empty when equal
  /// One line for logs and the report.
  std::string summary() const;
};

/// The most of the student's tokens that may be missing in a vocabulary that is still mapped.
inline constexpr double kMostMissing = 0.01;

/// Compares the texts of all tokens. Texts that several tokens have (a byte and its character) pair up in the order of
/// their ids; BOS and EOS are each other's whatever their text.
VocabularyMap compare_vocabularies(const Tokenizer& student, const Tokenizer& teacher);

/// Error(bad_input) with the first tokens that differ, for losses that compare token with token.
void require_shared_tokens(const VocabularyMap& map, const std::string& student, const std::string& teacher);

/// A teacher that is asked in the student's tokens and answers in them.
class MappedTeacher : public Teacher {
 public:
  /// Mean probability that the teacher gave to tokens which the student lacks, over all rows since it was opened or
  /// told to forget them.
  virtual double lost_mass() const = 0;
  virtual void forget_lost_mass() = 0;
  /// The teacher itself, in its own ids.
  virtual Teacher& unmapped() = 0;
};

/// `teacher` behind `map`: [n, width] logits, width being the student's; -inf for tokens that the teacher lacks and for
/// padding. Error(bad_input) for a document with a token that the teacher lacks, naming it.
std::unique_ptr<MappedTeacher> map_vocabulary(std::unique_ptr<Teacher> teacher, VocabularyMap map, int64_t width);

}  // namespace retort
