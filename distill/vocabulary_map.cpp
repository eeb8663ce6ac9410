#include "distill/vocabulary_map.h"

#include <ATen/ATen.h>

#include <unordered_map>

#include "core/error.h"
#include "core/json.h"

namespace retort {
namespace {

std::string in_quotes(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

class Mapped final : public MappedTeacher {
 public:
  Mapped(std::unique_ptr<Teacher> teacher, VocabularyMap map, int64_t width)
      : teacher_(std::move(teacher)), map_(std::move(map)), width_(width) {
    std::vector<int64_t> from, to;
    for (size_t id = 0; id < map_.to_teacher.size() && id < static_cast<size_t>(width); ++id) {
      if (map_.to_teacher[id] < 0) continue;
      from.push_back(map_.to_teacher[id]);
      to.push_back(static_cast<int64_t>(id));
    }
    from_ = at::tensor(from, at::kLong);
    to_ = at::tensor(to, at::kLong);
  }

  const TeacherIdentity& identity() const override { return teacher_->identity(); }
  int64_t vocab() const override { return width_; }
  ServedModel* served() override { return teacher_->served(); }
  std::shared_ptr<CausalLM> torch() override { return teacher_->torch(); }
  double lost_mass() const override { return rows_ > 0 ? lost_ / static_cast<double>(rows_) : 0; }
  void forget_lost_mass() override { lost_ = 0, rows_ = 0; }
  Teacher& unmapped() override { return *teacher_; }

  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    std::vector<std::vector<int32_t>> translated(documents.size());
    for (size_t d = 0; d < documents.size(); ++d) {
      if (wanted[d].empty()) continue;
      for (int64_t t = 0; t <= wanted[d].back(); ++t)
        translated[d].push_back(translate(documents[d][static_cast<size_t>(t)], d, t));
    }
    teacher_->logits(translated, wanted, [&](size_t d, const at::Tensor& logits) { each(d, mapped(logits)); });
  }

  DenseLogits dense(const Batch& batch, const std::vector<int64_t>& rows) override {
    Batch translated = batch;
    translated.ids = batch.ids.to(at::kCPU, at::kLong, false, true);
    auto* id = translated.ids.mutable_data_ptr<int64_t>();
    for (size_t d = 0, row = 0; d + 1 < batch.offsets.size(); ++d) {
      int64_t wanted = batch.offsets[d];  // what follows the last row changes nothing, and the teacher may lack it
      for (; row < rows.size() && rows[row] < batch.offsets[d + 1]; ++row) wanted = rows[row] + 1;
      for (int64_t t = batch.offsets[d]; t < batch.offsets[d + 1]; ++t)
        id[t] = t < wanted ? translate(static_cast<int32_t>(id[t]), d, t - batch.offsets[d]) : 0;
    }
    return [this, inner = teacher_->dense(translated, rows)](int64_t begin, int64_t end) {
      return mapped(inner(begin, end));
    };
  }

 private:
  int32_t translate(int32_t id, size_t document, int64_t position) const {
    const auto index = static_cast<size_t>(id);
    const int32_t other = id >= 0 && index < map_.to_teacher.size() ? map_.to_teacher[index] : -1;
    if (other < 0)
      fail(Exit::bad_input,
           "token {} at position {} of document {} is not in the teacher's vocabulary, so the teacher cannot read the "
           "document; {}",
           id, position, document, map_.summary());
    return other;
  }

  at::Tensor mapped(const at::Tensor& logits) {
    const at::Tensor known = logits.index_select(1, from_.to(logits.device()));
    if (map_.extra > 0) {
      const at::Tensor kept = (at::logsumexp(known, 1) - at::logsumexp(logits, 1)).exp();
      lost_ += (1 - kept.to(at::kDouble)).sum().item<double>();
    }
    rows_ += logits.size(0);
    at::Tensor result = at::full({logits.size(0), width_}, -INFINITY, logits.options());
    return result.index_copy_(1, to_.to(logits.device()), known);
  }

  std::unique_ptr<Teacher> teacher_;
  VocabularyMap map_;
  int64_t width_;
  at::Tensor from_, to_;  ///< i64: ids of the teacher and of the student for the same tokens
  double lost_ = 0;
  int64_t rows_ = 0;
};

}  // namespace

std::string VocabularyMap::summary() const {
  if (match == VocabularyMatch::equal) return fmt::format("the vocabularies are equal ({} tokens)", student_size);
  return fmt::format(
      "the student's {} tokens and the teacher's {} {}: {} of the student's are missing in the teacher's, {} of the "
      "teacher's in the student's; first differences: {}",
      student_size, teacher_size, match == VocabularyMatch::mapped ? "are mapped by their text" : "differ", missing,
      extra, first_differences);
}

VocabularyMap compare_vocabularies(const Tokenizer& student, const Tokenizer& teacher) {
  VocabularyMap map;
  map.student_size = student.size();
  map.teacher_size = teacher.size();
  std::unordered_map<std::string, std::vector<int32_t>> places;  // in descending order: the last one is next
  std::vector<std::string> theirs(static_cast<size_t>(map.teacher_size));
  for (auto id = static_cast<int32_t>(map.teacher_size) - 1; id >= 0; --id)
    places[theirs[static_cast<size_t>(id)] = teacher.piece(id)].push_back(id);
  std::vector<uint8_t> used(theirs.size(), 0);
  map.to_teacher.assign(static_cast<size_t>(map.student_size), -1);
  auto pair_up = [&](int32_t mine, int32_t their) {
    if (mine < 0 || their < 0 || map.to_teacher[static_cast<size_t>(mine)] >= 0 || used[static_cast<size_t>(their)])
      return;
    map.to_teacher[static_cast<size_t>(mine)] = their;
    used[static_cast<size_t>(their)] = 1;
  };
  constexpr int shown = 5;
  int differences = 0;
  for (int32_t id = 0; id < map.student_size; ++id) {
    const std::string piece = student.piece(id);
    const auto index = static_cast<size_t>(id);
    const bool same = index < theirs.size() && piece == theirs[index];
    if (!same && differences++ < shown)
      map.first_differences += fmt::format("{}{}: {} here, {} there", differences > 1 ? "; " : "", id, in_quotes(piece),
                                           index < theirs.size() ? in_quotes(theirs[index]) : "no token");
    const auto found = places.find(piece);
    if (found == places.end() || found->second.empty()) continue;
    pair_up(id, found->second.back());
    found->second.pop_back();
  }
  pair_up(student.bos(), teacher.bos());
  pair_up(student.eos(), teacher.eos());
  for (int32_t other : map.to_teacher) map.missing += other < 0;
  for (uint8_t use : used) map.extra += !use;
  if (differences == 0 && map.extra > 0)
    map.first_differences = fmt::format("{}: no token here, {} there", map.student_size,
                                        in_quotes(theirs[static_cast<size_t>(map.student_size)]));
  if (differences == 0 && map.extra == 0)
    map.match = VocabularyMatch::equal;
  else if (static_cast<double>(map.missing) <= kMostMissing * static_cast<double>(map.student_size))
    map.match = VocabularyMatch::mapped;
  else
    map.match = VocabularyMatch::different;
  return map;
}

void require_shared_tokens(const VocabularyMap& map, const std::string& student, const std::string& teacher) {
  if (map.match != VocabularyMatch::different) return;
  fail(Exit::bad_input,
       "{} and its teacher {} have different vocabularies, and this loss compares token with token: {}. Use loss: uld "
       "or spans, which compare across vocabularies, or a teacher with the student's tokens",
       student, teacher, map.summary());
}

std::unique_ptr<MappedTeacher> map_vocabulary(std::unique_ptr<Teacher> teacher, VocabularyMap map, int64_t width) {
  return std::make_unique<Mapped>(std::move(teacher), std::move(map), width);
}

}  // namespace retort
