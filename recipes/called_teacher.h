// A teacher of a recipe once it is open, and what was found out about its vocabulary.
#pragma once

#include <optional>
#include <string>

#include "core/progress.h"
#include "data/chat_template.h"
#include "distill/paired_texts.h"
#include "distill/recorded.h"
#include "distill/teacher.h"
#include "distill/vocabulary_map.h"
#include "recipes/prepare.h"
#include "recipes/recipe.h"

namespace retort {

/// A teacher of the recipe. Its model may be closed after what was found out about it.
struct CalledTeacher {
  TeacherOptions options = {};                   ///< with local paths
  std::string name = {};                         ///< as the recipe calls it
  OpenedTeacher teacher = {};                    ///< no model: recorded answers
  std::optional<RecordedTeacher> recorded = {};  ///< those
  std::string vocabulary = {};                   ///< how it compares with the student's
  bool by_text = false;                          ///< compared by stretches of text, not by tokens
  MappedTeacher* mapped = nullptr;               ///< the model, when it is asked in other ids than its own
  bool same_tokens = false;                      ///< every id stands for the same token
  TeacherIdentity identity = {};

  bool is_open() const { return recorded || teacher.model; }
};

/// Opens a teacher of `recipe` for the student `model` and compares their vocabularies. Error(usage) for what does not
/// fit the recipe's loss; else as open_teacher and open_recorded throw them.
CalledTeacher call_teacher(const Recipe& recipe, const Prepared& prepared, CausalLM& model, TeacherOptions options,
                           const ProgressSink& progress);

/// Rows in both tokenizations.
struct BothTexts {
  ChatTemplate teacher_template;
  PairedTexts texts;

  BothTexts(const Recipe& recipe, const Prepared& prepared, const CalledTeacher& called, const Stream<Chat>& rows)
      : teacher_template(reading_template(*called.teacher.tokenizer, prepared.now)),
        texts(rows, {*prepared.tokenizer, *prepared.chat_template}, {*called.teacher.tokenizer, teacher_template},
              encode_options(recipe)) {}
};

}  // namespace retort
