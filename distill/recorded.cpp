#include "distill/recorded.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <unordered_map>

#include "core/hash.h"
#include "data/recorded.h"
#include "distill/documents.h"
#include "distill/spans.h"

namespace retort {
namespace {

/// What is known of one position: tokens and log-probabilities.
using Known = std::vector<std::pair<int32_t, float>>;

struct Recording {
  std::map<DocumentKey, std::vector<Known>> documents;  ///< by the student's tokens: one entry a token
  int64_t width = 0;
};

/// The student's token of some bytes; special tokens are none.
std::unordered_map<std::string, int32_t> tokens_by_bytes(const Tokenizer& tokenizer, int64_t width) {
  std::unordered_map<std::string, int32_t> tokens;
  for (int32_t id = 0; id < std::min(tokenizer.size(), width); ++id)
    if (!tokenizer.ends_generation(id)) tokens.emplace(tokenizer.piece(id), id);
  return tokens;
}

Known known_of(const RecordedToken& token, int32_t label, const std::unordered_map<std::string, int32_t>& ids) {
  Known known = {{label, static_cast<float>(token.log_p)}};
  for (const auto& [bytes, log_p] : token.top) {
    const auto found = ids.find(bytes);
    if (found != ids.end() && found->second != label && bytes != token.bytes)
      known.emplace_back(found->second, static_cast<float>(log_p));
  }
  return known;
}

/// Of each token of the document, what was recorded about it.
std::vector<Known> align(const RecordedAnswer& answer, const Example& example, const Tokenizer& tokenizer,
                         const std::unordered_map<std::string, int32_t>& ids) {
  std::vector<Known> all(example.ids.size());
  // A chat that was cut may end in an earlier answer than the recorded one.
  const auto answers = std::count_if(answer.messages.begin(), answer.messages.end(),
                                     [](const Message& message) { return message.role == "assistant"; });
  if (example.truncated && answers > 1) return all;
  // The answer is the last trained stretch.
  size_t end = example.ids.size();
  while (end > 0 && !example.trained[end - 1]) --end;
  size_t begin = end;
  while (begin > 0 && example.trained[begin - 1]) --begin;
  std::vector<std::string> theirs;
  for (const RecordedToken& token : answer.tokens) theirs.push_back(token.bytes);
  const std::vector<std::string> mine = token_bytes(tokenizer, std::span(example.ids).subspan(begin, end - begin));
  for (const Span& span : align_spans(mine, theirs)) {
    if (span.student_end - span.student_begin != 1) continue;
    const size_t at = begin + static_cast<size_t>(span.student_begin);
    RecordedToken token = answer.tokens[static_cast<size_t>(span.teacher_begin)];
    if (span.teacher_end - span.teacher_begin > 1) token.top.clear();
    for (int64_t t = span.teacher_begin + 1; t < span.teacher_end; ++t)
      token.log_p += answer.tokens[static_cast<size_t>(t)].log_p;
    all[at] = known_of(token, example.ids[at], ids);
  }
  return all;
}

Partition partition_of(const std::vector<const Known*>& rows, int64_t width) {
  size_t most = 1;
  for (const Known* known : rows) most = std::max(most, known ? known->size() : 0);
  const auto n = static_cast<int64_t>(rows.size()), k = static_cast<int64_t>(most);
  Partition partition{at::full({n, k}, -1, at::kInt), at::full({n, k}, -INFINITY), at::zeros({width}, at::kByte),
                      at::zeros({n, 1})};
  auto* id = partition.ids.mutable_data_ptr<int32_t>();
  auto *log_p = partition.log_p.mutable_data_ptr<float>(), *rest = partition.log_mass.mutable_data_ptr<float>();
  for (int64_t r = 0; r < n; ++r) {
    const Known* known = rows[static_cast<size_t>(r)];
    double mass = 0;
    for (size_t i = 0; known && i < known->size(); ++i) {
      const auto place = r * k + static_cast<int64_t>(i);
      std::tie(id[place], log_p[place]) = (*known)[i];
      mass += std::exp(log_p[place]);
    }
    // Services round, so that the listed ones may sum to a little more than one.
    if (mass > 1)
      for (int64_t i = 0; i < k; ++i) log_p[r * k + i] -= static_cast<float>(std::log(mass));
    rest[r] = static_cast<float>(std::log(std::max(0.0, 1 - mass)));
  }
  return partition;
}

TeacherTargets look_up(const Recording& recording, const Batch& batch) {
  std::vector<const Known*> rows;
  for_documents(batch, [&](const BatchDocument& document) {
    const auto found = recording.documents.find(document_key(document.ids));
    const bool known = found != recording.documents.end() && found->second.size() == document.ids.size();
    for (const int64_t position : document.trained)
      rows.push_back(known ? &found->second[static_cast<size_t>(position) + 1] : nullptr);
  });
  TeacherTargets targets;
  targets.rows = static_cast<int64_t>(rows.size());
  targets.partition = partition_of(rows, recording.width);
  return targets;
}

}  // namespace

RecordedTeacher open_recorded(const std::filesystem::path& path, const Tokenizer& tokenizer,
                              const ChatTemplate& chat_template, const EncodeOptions& options, int64_t width) {
  const auto recording = std::make_shared<Recording>();
  recording->width = width;
  const auto ids = tokens_by_bytes(tokenizer, width);
  RecordedTeacher teacher;
  teacher.identity.hash = sha256_file(path);
  const Stream<RecordedAnswer> answers = read_recorded(path);
  Ledger unused;
  for (RecordedAnswer answer; answers(answer);) {
    teacher.counts.answers += 1;
    if (teacher.identity.engine.empty()) teacher.identity.engine = answer.model;
    const Chat chat{answer.place, "", answer.messages, "", {}};
    const auto example = encode(tokenizer, chat_template, chat, options, unused);
    if (!example) continue;
    std::vector<Known> known = align(answer, *example, tokenizer, ids);
    teacher.counts.trained_tokens += std::count(example->trained.begin(), example->trained.end(), 1);
    teacher.counts.aligned_tokens +=
        std::count_if(known.begin(), known.end(), [](const Known& one) { return !one.empty(); });
    recording->documents[document_key(example->ids)] = std::move(known);
  }
  teacher.targets = [recording](const Batch& batch, std::span<const int64_t>) { return look_up(*recording, batch); };
  return teacher;
}

}  // namespace retort
