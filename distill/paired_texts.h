// Documents in the student's tokens and in a teacher's that cuts text differently.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "data/encode.h"
#include "distill/documents.h"
#include "distill/spans.h"
#include "distill/targets.h"
#include "distill/teacher.h"

namespace retort {

/// One side's reading of a chat.
struct Reader {
  const Tokenizer& tokenizer;
  const ChatTemplate& chat_template;
};

/// The teacher's own chat template; a base model, which has none, reads the messages as paragraphs, with its
/// end-of-text token behind each answer. `now` as ChatTemplate takes it.
ChatTemplate reading_template(const Tokenizer& teacher, std::time_t now = std::time(nullptr));

struct PairedDocument {
  std::vector<int32_t> teacher;  ///< the teacher's tokens
  std::vector<Span> spans;       ///< of tokens that the student trains
  std::vector<double> log_p;     ///< the teacher's log-likelihood of each span, once it was asked
};

/// The documents of a data set, found by the student's tokens. Each side reads a chat through its own template, so only
/// what both train on is aligned: answer with answer, text with text. About 4 bytes a token and 32 a span in memory.
class PairedTexts {
 public:
  /// `options` are the student's; the teacher reads whole documents. Error(bad_input) as encode() throws it.
  PairedTexts(Stream<Chat> chats, const Reader& student, const Reader& teacher, const EncodeOptions& options);
  /// nullptr: no document has these tokens.
  PairedDocument* find(std::span<const int32_t> student);
  int64_t trained_tokens() const { return trained_; }  ///< the student's
  int64_t aligned_tokens() const { return aligned_; }  ///< of those, in spans

 private:
  std::map<DocumentKey, PairedDocument> documents_;
  int64_t trained_ = 0, aligned_ = 0;
};

/// A teacher at the spans of a batch.
struct SpanTargets {
  std::vector<int64_t> rows;     ///< the batch's positions whose labels are the spans' tokens, span after span
  std::vector<int64_t> offsets;  ///< of each span in `rows`, then their number: [spans + 1]
  at::Tensor log_p;              ///< f64 [spans]: the teacher's log-likelihood of each, nats
};
using SpanSource = std::function<SpanTargets(const Batch& batch)>;

/// The teacher is asked about each document once. Both must outlive the source.
SpanSource span_targets(Teacher& teacher, PairedTexts& texts);

/// A teacher at the positions of a batch where a token of both begins: how probable its most probable tokens are,
/// whatever they are.
struct RankedTargets {
  at::Tensor labels;       ///< i64 [T]: the batch's, -1 also where no token of the teacher begins
  TeacherTargets targets;  ///< `partition`: the `ranks` greatest, and one cell for the others
};
using RankedSource = std::function<RankedTargets(const Batch& batch)>;

/// Both must outlive the source. `width` is the student's vocabulary.
RankedSource ranked_targets(Teacher& teacher, PairedTexts& texts, int64_t width, double temperature,
                            int64_t ranks = 256);

}  // namespace retort
