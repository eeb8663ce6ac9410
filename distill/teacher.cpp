#include "distill/teacher.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "core/schema.h"

namespace retort {

#define KIND(name) extern const TeacherKind teacher_##name;
#include "teacher_kinds.inc"
#undef KIND

const std::vector<const TeacherKind*>& teacher_kinds() {
  static const std::vector<const TeacherKind*> kinds = {
#define KIND(name) &teacher_##name,
#include "teacher_kinds.inc"
#undef KIND
  };
  return kinds;
}

static bool is_recording(const std::filesystem::path& path) {
  return path.extension() == ".jsonl" || path.extension() == ".json";
}

const TeacherKind* teacher_kind(const TeacherOptions& options) {
  const bool find = options.kind == "auto";
  std::vector<std::string> known = {"auto", "recorded"};
  if (options.kind == "recorded" || (find && is_recording(options.path))) return nullptr;
  for (const TeacherKind* kind : teacher_kinds()) {
    if (find ? kind->accepts(options.path) : options.kind == kind->name) return kind;
    known.emplace_back(kind->name);
  }
  if (!find) fail(Exit::usage, "teacher.kind: {}", not_among(options.kind, known));
  fail(Exit::usage,
       "teacher.path: {} is no GGUF file, no folder and no .jsonl file: no kind of teacher reads it. Say teacher.kind",
       options.path.string());
}

OpenedTeacher open_teacher(const TeacherOptions& options, const TeacherPlace& place) {
  const TeacherKind* kind = teacher_kind(options);
  if (!kind)
    fail(Exit::usage, "{}: recorded answers cannot be asked about other tokens; a teacher that can is needed here",
         options.path.string());
  const auto unread = [&](const char* option, int64_t value) {
    if (value != 0 && !kind->reads_llama_options)
      fail(Exit::usage,
           "teacher.{}: {}: for kind: gguf, which llama.cpp runs; a teacher of kind {} runs where the student does: "
           "leave it out",
           option, value, kind->name);
  };
  unread("gpu_layers", options.gpu_layers);
  unread("threads", options.threads);
  return kind->open(options, place);
}

void check_logits(const at::Tensor& logits, const std::string& teacher, size_t document,
                  const std::vector<int64_t>& positions) {
  if (logits.size(0) == 0) return;
  const at::Tensor greatest = logits.amax(-1).to(at::kFloat).cpu();  // NaN where a row has one
  const float* values = greatest.const_data_ptr<float>();
  for (size_t i = 0; i < positions.size(); ++i)
    if (!std::isfinite(values[i]))
      fail(Exit::bad_input,
           "{}: the teacher's logits after position {} of document {} have {}; the file is damaged or its numbers do "
           "not fit its type",
           teacher, positions[i], document, std::isnan(values[i]) ? "a NaN" : "no finite greatest value");
}

DenseLogits Teacher::dense(const Batch& batch, const std::vector<int64_t>& rows) {
  /// Consecutive documents that are asked about together, and the rows that their logits are.
  struct Group {
    std::vector<std::vector<int32_t>> documents;
    std::vector<std::vector<int64_t>> wanted;
    int64_t begin = 0, end = 0;
  };
  constexpr int64_t tokens_of_a_group = 512;
  auto groups = std::make_shared<std::vector<Group>>();
  const at::Tensor ids = batch.ids.cpu();
  const int64_t* id = ids.const_data_ptr<int64_t>();
  size_t row = 0;
  int64_t tokens = tokens_of_a_group;
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
    const int64_t begin = batch.offsets[d], end = batch.offsets[d + 1];
    std::vector<int64_t> wanted;
    const auto first = static_cast<int64_t>(row);
    for (; row < rows.size() && rows[row] < end; ++row) wanted.push_back(rows[row] - begin);
    if (wanted.empty()) continue;
    const int64_t length = wanted.back() + 1;  // what follows the last row changes nothing
    const std::vector<int32_t> document(id + begin, id + begin + length);
    // A long document is asked about in pieces: teachers keep what they computed of its beginning.
    for (auto next = wanted.begin(); length > tokens_of_a_group && next != wanted.end();) {
      const int64_t piece = *next / tokens_of_a_group;
      const auto from = next;
      while (next != wanted.end() && *next / tokens_of_a_group == piece) ++next;
      const int64_t row_of = first + (from - wanted.begin());
      groups->push_back({{document}, {{from, next}}, row_of, row_of + (next - from)});
      tokens = tokens_of_a_group;
    }
    if (length > tokens_of_a_group) continue;
    if (tokens + length > tokens_of_a_group) {
      groups->push_back({{}, {}, first, first});
      tokens = 0;
    }
    tokens += length;
    Group& group = groups->back();
    group.end = static_cast<int64_t>(row);
    group.documents.push_back(document);
    group.wanted.push_back(std::move(wanted));
  }
  struct Present {
    size_t group = SIZE_MAX;
    std::vector<at::Tensor> logits;  ///< of its documents
  };
  auto present = std::make_shared<Present>();
  return [this, groups, present](int64_t begin, int64_t end) {
    std::vector<at::Tensor> parts;
    for (size_t g = 0; g < groups->size(); ++g) {
      const Group& group = (*groups)[g];
      if (group.end <= begin || group.begin >= end) continue;
      if (present->group != g) {
        present->group = SIZE_MAX;
        present->logits.clear();
        logits(group.documents, group.wanted, [&](size_t, const at::Tensor& one) { present->logits.push_back(one); });
        present->group = g;
      }
      int64_t at = group.begin;
      for (const at::Tensor& one : present->logits) {
        const int64_t from = std::max(begin, at), to = std::min(end, at + one.size(0));
        if (from < to) parts.push_back(one.slice(0, from - at, to - at));
        at += one.size(0);
      }
    }
    return parts.size() == 1 ? parts[0] : at::cat(parts);
  };
}

}  // namespace retort
