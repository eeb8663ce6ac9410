// A teacher with an adapter is the merged model, in either engine, and what it says is checked before anyone reads it.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "distill/teacher.h"
#include "export/gguf.h"
#include "models/served.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

/// A tiny model as a folder and as a GGUF file; a random adapter as a PEFT folder and as a GGUF file; what LibTorch
/// says of the model with the adapter merged in.
struct AdaptedTeacher : testing::Test {
  TemporaryFolder folder;
  std::vector<std::vector<int32_t>> documents = {{5, 9, 40, 300}, {7}, {8, 3, 200, 11, 12, 13}};
  std::vector<std::vector<int64_t>> wanted = {{0, 3}, {}, {1, 2, 5}};
  std::vector<at::Tensor> plain, merged;

  AdaptedTeacher() {
    write_tiny_folder(folder / "hf", tiny_folder_config(), at::kFloat);
    const auto checkpoint = Checkpoint::open(folder / "hf");
    const auto model = CausalLM::load(*checkpoint, {});
    export_gguf(folder / "model.gguf", *checkpoint, *model, gguf_type("F32"), {});
    plain = said_by(*model);
    attach(*model, {}, 1);
    const at::NoGradGuard no_grad;
    at::manual_seed(1);
    for (const Parameter& p : trainable_parameters(*model)) at::Tensor(p.tensor).normal_(0, 0.3);
    save_peft(folder / "peft", *model, {}, {"", checkpoint->hash(), "", "", ""});
    export_gguf_adapter(folder / "adapter.gguf", *model, {});
    export_gguf(folder / "merged.gguf", *checkpoint, *model, gguf_type("F32"), {});
    merged = said_by(*CausalLM::load(*Checkpoint::open(folder / "merged.gguf"), {}));
  }
  std::vector<at::Tensor> said_by(CausalLM& model) const {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> all(documents.size());
    for (size_t d = 0; d < documents.size(); ++d) {
      if (wanted[d].empty()) continue;
      const Batch batch{
          at::tensor(documents[d], at::kInt).to(at::kLong), {}, {0, static_cast<int64_t>(documents[d].size())}};
      all[d] = model.logits(model.hidden(batch)).index_select(0, at::tensor(wanted[d]));
    }
    return all;
  }
  /// Largest difference of the teacher's logits from `all`, over their largest value.
  double apart(const TeacherOptions& options, const std::vector<at::Tensor>& all) const {
    const OpenedTeacher teacher = open_teacher(options);
    double most = 0;
    teacher.model->logits(documents, wanted,
                          [&](size_t d, const at::Tensor& logits) { most = std::max(most, relative(logits, all[d])); });
    return most;
  }
  /// Numbers that overflow only when they are used: llama.cpp looks for NaN in files.
  void damage() const {
    const auto file = SafetensorsFile::open(folder / "hf/model.safetensors");
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const SafetensorsEntry& entry : file->entries())
      tensors.emplace_back(entry.name, file->tensor(entry.name).clone());
    for (auto& [name, tensor] : tensors)
      if (name == "model.norm.weight") tensor.fill_(3e38);
    write_safetensors(folder / "hf/model.safetensors", tensors);
    const auto checkpoint = Checkpoint::open(folder / "hf");
    export_gguf(folder / "model.gguf", *checkpoint, *CausalLM::load(*checkpoint, {}), gguf_type("F32"), {});
  }
};

TEST_F(AdaptedTeacher, GgufIsTheMergedModel) {
  const TeacherOptions with{.path = folder / "model.gguf", .adapter = folder / "adapter.gguf"};
  EXPECT_LT(apart({.path = folder / "model.gguf"}, plain), 0.01);
  EXPECT_LT(apart(with, merged), 0.01);
  EXPECT_GT(apart(with, plain), 0.1);
  EXPECT_NE(open_teacher(with).model->identity().hash,
            open_teacher({.path = folder / "model.gguf"}).model->identity().hash);
}

TEST_F(AdaptedTeacher, HuggingFaceIsTheMergedModel) {
  const TeacherOptions with{.path = folder / "hf", .adapter = folder / "peft"};
  EXPECT_LT(apart({.path = folder / "hf"}, plain), 1e-5);
  EXPECT_LT(apart(with, merged), 1e-5);
  EXPECT_GT(apart(with, plain), 0.1);
  EXPECT_NE(open_teacher(with).model->identity().hash, open_teacher({.path = folder / "hf"}).model->identity().hash);
}

TEST_F(AdaptedTeacher, LongDocumentsAreReadInPieces) {
  std::vector<int32_t> document;
  for (int32_t t = 0; t < 1200; ++t) document.push_back(t * 37 % 460);
  std::vector<int64_t> rows;
  for (int64_t t = 0; t < 1200; t += t == 300 ? 400 : 10) rows.push_back(t);
  const Batch batch{at::tensor(document, at::kInt).to(at::kLong), {}, {0, 1200}};
  const auto count = static_cast<int64_t>(rows.size());
  const OpenedTeacher teacher = open_teacher({.path = folder / "model.gguf"});
  teacher.model->logits({document, document}, {{20}, {30}}, [](size_t, const at::Tensor&) {});  // leaves its beginning
  const DenseLogits dense = teacher.model->dense(batch, rows);
  const at::Tensor whole = ServedModel::open(folder / "model.gguf")->logits(document, rows);
  for (int round = 0; round < 2; ++round)  // the second time from the start again
    for (int64_t begin = 0; begin < count; begin += 16) {
      const int64_t end = std::min(count, begin + 16);
      EXPECT_LT(relative(dense(begin, end), whole.slice(0, begin, end)), 0.01) << begin;
    }
}

TEST_F(AdaptedTeacher, NumbersThatAreNoneAreNamedWithDocumentAndPosition) {
  damage();
  const Batch batch{at::tensor({5, 9, 40, 8, 3, 12, 4}, at::kLong), {}, {0, 3, 7}};
  for (const char* path : {"model.gguf", "hf"}) {
    const OpenedTeacher teacher = open_teacher({.path = folder / path});
    expect_error(Exit::bad_input, {path, "position 5", "document 2"}, [&] {
      teacher.model->logits(documents, {{}, {}, {5}}, [](size_t, const at::Tensor&) {});
    });
    expect_error(Exit::bad_input, {path, "position 3"}, [&] { teacher.model->dense(batch, {6})(0, 1); });
  }
}

}  // namespace
}  // namespace retort
