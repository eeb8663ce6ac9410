#include "distill/paired_texts.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace retort {
namespace {

/// A stretch of tokens whose text the other side has as well.
struct Stretch {
  int64_t begin, end;
};

/// Trained stretches of a chat, each an answer; the whole of a text.
std::vector<Stretch> stretches(const Example& example, bool text) {
  const auto size = static_cast<int64_t>(example.ids.size());
  if (text) return {{0, size}};
  std::vector<Stretch> all;
  for (int64_t t = 0; t < size; ++t) {
    if (!example.trained[static_cast<size_t>(t)]) continue;
    if (all.empty() || all.back().end != t) all.push_back({t, t});
    all.back().end = t + 1;
  }
  return all;
}

std::vector<std::string> bytes_of(const Tokenizer& tokenizer, const Example& example, const Stretch& stretch) {
  std::vector<std::string> bytes = token_bytes(
      tokenizer, std::span(example.ids)
                     .subspan(static_cast<size_t>(stretch.begin), static_cast<size_t>(stretch.end - stretch.begin)));
  if (stretch.begin == 0 && tokenizer.adds_bos() && !bytes.empty()) bytes[0].clear();
  return bytes;
}

/// One teacher document of a batch, and where the student's begins in it.
struct Asked {
  PairedDocument* document;
  int64_t offset;
};

std::vector<Asked> documents_of(const Batch& batch, PairedTexts& texts) {
  std::vector<Asked> asked;
  for_documents(batch, [&](const BatchDocument& one) {
    if (PairedDocument* document = texts.find(one.ids)) asked.push_back({document, one.offset});
  });
  return asked;
}

/// log p of the tokens that follow each of `positions`, for one document's logits at those.
at::Tensor label_log_p(const at::Tensor& logits, const std::vector<int32_t>& ids,
                       const std::vector<int64_t>& positions) {
  std::vector<int64_t> labels;
  for (int64_t position : positions) labels.push_back(ids[static_cast<size_t>(position) + 1]);
  const at::Tensor index = at::tensor(labels, at::kLong).unsqueeze(1);
  return (logits.gather(1, index).squeeze(1) - at::logsumexp(logits, 1)).to(at::kDouble);
}

/// Fills in log_p of the documents that do not have it yet.
void ask(Teacher& teacher, const std::vector<Asked>& asked) {
  std::vector<PairedDocument*> unknown;
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::vector<int64_t>> wanted;
  for (const Asked& one : asked) {
    PairedDocument* document = one.document;
    const bool twice = std::find(unknown.begin(), unknown.end(), document) != unknown.end();
    if (document->spans.empty() || !document->log_p.empty() || twice) continue;
    unknown.push_back(document);
    documents.push_back(document->teacher);
    wanted.emplace_back();
    for (const Span& span : document->spans)
      for (int64_t t = span.teacher_begin; t < span.teacher_end; ++t) wanted.back().push_back(t - 1);
  }
  teacher.logits(documents, wanted, [&](size_t d, const at::Tensor& logits) {
    const at::Tensor log_p = label_log_p(logits, documents[d], wanted[d]);
    const double* next = log_p.const_data_ptr<double>();
    for (const Span& span : unknown[d]->spans) {
      double sum = 0;
      for (int64_t t = span.teacher_begin; t < span.teacher_end; ++t) sum += *next++;
      unknown[d]->log_p.push_back(sum);
    }
  });
}

}  // namespace

ChatTemplate reading_template(const Tokenizer& teacher, std::time_t now) {
  constexpr const char* paragraphs =
      "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
      "{% endfor %}";
  return ChatTemplate(teacher, teacher.chat_template().empty() ? paragraphs : "", now);
}

PairedTexts::PairedTexts(Stream<Chat> chats, const Reader& student, const Reader& teacher,
                         const EncodeOptions& options) {
  EncodeOptions whole = options;
  whole.max_length = std::numeric_limits<int32_t>::max();
  Ledger unused;
  for (Chat chat; chats(chat);) {
    const auto mine = encode(student.tokenizer, student.chat_template, chat, options, unused);
    if (!mine) continue;
    const auto theirs = encode(teacher.tokenizer, teacher.chat_template, chat, whole, unused);
    const bool text = chat.messages.empty();
    const auto my_stretches = stretches(*mine, text), their_stretches = stretches(*theirs, text);
    PairedDocument document{theirs->ids, {}, {}};
    trained_ += std::count(mine->trained.begin(), mine->trained.end(), 1);
    for (size_t i = 0; i < std::min(my_stretches.size(), their_stretches.size()); ++i) {
      const Stretch &my = my_stretches[i], &their = their_stretches[i];
      for (Span span :
           align_spans(bytes_of(student.tokenizer, *mine, my), bytes_of(teacher.tokenizer, *theirs, their))) {
        span = {span.student_begin + my.begin, span.student_end + my.begin, span.teacher_begin + their.begin,
                span.teacher_end + their.begin};
        // Nothing comes before a document's first token that could predict it.
        if (span.student_begin == 0 || span.teacher_begin == 0) continue;
        document.spans.push_back(span);
        aligned_ += span.student_end - span.student_begin;
      }
    }
    documents_[document_key(mine->ids)] = std::move(document);
  }
}

PairedDocument* PairedTexts::find(std::span<const int32_t> student) {
  const auto found = documents_.find(document_key(student));
  return found == documents_.end() ? nullptr : &found->second;
}

SpanSource span_targets(Teacher& teacher, PairedTexts& texts) {
  return [&](const Batch& batch) {
    const std::vector<Asked> asked = documents_of(batch, texts);
    ask(teacher, asked);
    SpanTargets targets{{}, {0}, {}};
    std::vector<double> log_p;
    for (const Asked& one : asked) {
      for (const Span& span : one.document->spans) {
        for (int64_t t = span.student_begin; t < span.student_end; ++t) targets.rows.push_back(one.offset + t - 1);
        targets.offsets.push_back(static_cast<int64_t>(targets.rows.size()));
      }
      log_p.insert(log_p.end(), one.document->log_p.begin(), one.document->log_p.end());
    }
    targets.log_p = at::tensor(log_p, at::kDouble);
    return targets;
  };
}

RankedSource ranked_targets(Teacher& teacher, PairedTexts& texts, int64_t width, double temperature, int64_t ranks) {
  return [=, &teacher, &texts](const Batch& batch) {
    RankedTargets ranked{at::full_like(batch.labels, -1), {}};
    const std::vector<Asked> asked = documents_of(batch, texts);
    Batch theirs{{}, {}, {0}};
    std::vector<int64_t> ids, rows, positions;
    for (const Asked& one : asked) {
      for (const Span& span : one.document->spans) {
        positions.push_back(one.offset + span.student_begin - 1);
        rows.push_back(theirs.tokens() + span.teacher_begin - 1);
      }
      ids.insert(ids.end(), one.document->teacher.begin(), one.document->teacher.end());
      theirs.offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    ranked.targets.rows = static_cast<int64_t>(rows.size());
    if (rows.empty()) return ranked;
    const at::Tensor at_rows = at::tensor(positions, at::kLong).to(batch.labels.device());
    ranked.labels.index_copy_(0, at_rows, batch.labels.index_select(0, at_rows));
    theirs.ids = at::tensor(ids, at::kLong);
    const DenseLogits dense = teacher.dense(theirs, rows);
    constexpr int64_t chunk = 64;
    std::vector<at::Tensor> log_p, log_rest;
    for (int64_t begin = 0; begin < ranked.targets.rows; begin += chunk) {
      const at::Tensor logits =
          at::log_softmax(dense(begin, std::min(begin + chunk, ranked.targets.rows)) / temperature, -1);
      log_p.push_back(std::get<0>(logits.topk(std::min(ranks, logits.size(1)), 1)));
      log_rest.push_back(at::log((1 - log_p.back().exp().sum(1, true)).clamp_min(0)));
    }
    Partition& partition = ranked.targets.partition;
    partition.log_p = at::cat(log_p);
    partition.log_mass = at::cat(log_rest);
    // Which tokens they are is the teacher's affair: the ids only tell the places apart.
    partition.ids = at::arange(partition.log_p.size(1), at::kInt).expand_as(partition.log_p).contiguous();
    partition.cell_of = at::zeros({width}, at::kByte);
    return ranked;
  };
}

}  // namespace retort
