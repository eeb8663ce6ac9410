// A teacher: any model that gives logits for tokens. One file a kind in distill/teachers/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "models/causal_lm.h"
#include "models/checkpoint.h"

namespace retort {

class ServedModel;

/// What a cache remembers of the model that filled it.
struct TeacherIdentity {
  std::string hash;            ///< SHA-256 over its tensors (and its adapter's)
  std::string quantization;    ///< "Q4_K", "F32", "nf4_dq": the type of most of its weights
  std::string tokenizer_hash;  ///< Tokenizer::hash()
  std::string engine;          ///< "llama.cpp", "LibTorch"
  int64_t vocab = 0;           ///< the width of its own logits
};

/// Logits f32 [end - begin, vocabulary] of rows [begin, end), as TeacherTargets::dense gives them.
using DenseLogits = std::function<at::Tensor(int64_t begin, int64_t end)>;

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual const TeacherIdentity& identity() const = 0;
  /// Width of its logits; may be more than its tokenizer's size.
  virtual int64_t vocab() const = 0;
  /// Logits f32 [wanted[i].size(), vocab()] on the host after each of the ascending positions `wanted[i]` of document
  /// i, for all documents in their order, as many in one batch as the engine likes; documents that want nothing are
  /// left out. Error(bad_input) naming document and position when a logit is NaN.
  virtual void logits(const std::vector<std::vector<int32_t>>& documents,
                      const std::vector<std::vector<int64_t>>& wanted,
                      const std::function<void(size_t document, const at::Tensor& logits)>& each) = 0;
  /// Logits after the ascending positions `rows` of a batch, without rows x vocabulary: those of documents of together
  /// 512 tokens exist at a time, of a longer document those of 512 of its tokens. Chunks are asked for in ascending
  /// order; going back to the first one computes them again. The teacher and what it was opened with must outlive the
  /// function.
  virtual DenseLogits dense(const Batch& batch, const std::vector<int64_t>& rows);
  /// The model itself, in the engine that runs it, so that nobody has to open it twice; nullptr in the other, and for
  /// the student's own base.
  virtual ServedModel* served() { return nullptr; }
  virtual std::shared_ptr<CausalLM> torch() { return nullptr; }
};

/// Logits f32 [n, vocabulary] of document `document` at `positions`: Error(bad_input) naming `teacher`, the document
/// and the position of the first row that has a NaN or no finite greatest value.
void check_logits(const at::Tensor& logits, const std::string& teacher, size_t document,
                  const std::vector<int64_t>& positions);

/// One teacher of a recipe.
struct TeacherOptions {
  std::string kind = "auto";           ///< auto: self without a path, else by what the path is
  std::filesystem::path path = {};     ///< a GGUF file, a Hugging Face folder, or JSON Lines of recorded answers
  std::filesystem::path adapter = {};  ///< gguf: a GGUF adapter; huggingface, self: a PEFT folder
  std::filesystem::path reference =
      {};                  ///< gguf: a file of higher precision, against which the teacher's error is measured
  double weight = 1;       ///< of this teacher among several
  int64_t gpu_layers = 0;  ///< gguf: layers on the GPU
  int64_t threads = 0;     ///< gguf: 0: the cores that this process may use
};

/// What a teacher may take from the student's side.
struct TeacherPlace {
  CausalLM* student = nullptr;             ///< self: the model whose base it shares
  const Checkpoint* checkpoint = nullptr;  ///< self: what the student was loaded from
  const Tokenizer* tokenizer = nullptr;    ///< self: the student's
  LoadOptions load = {};                   ///< huggingface: device and types
};

struct OpenedTeacher {
  std::unique_ptr<Teacher> model;
  std::shared_ptr<const Tokenizer> tokenizer;  ///< the teacher's own; `self`: the student's, which must outlive it
};

/// One kind of teacher: distill/teachers/<name>.cpp defines `extern const TeacherKind teacher_<name>`.
struct TeacherKind {
  const char* name;
  const char* summary;
  bool (*accepts)(const std::filesystem::path& path);  ///< for kind: auto
  OpenedTeacher (*open)(const TeacherOptions& options, const TeacherPlace& place);
  bool reads_llama_options = false;  ///< gpu_layers and threads
};

const std::vector<const TeacherKind*>& teacher_kinds();
/// The kind of `options`, by name or, for auto, by its path; nullptr for `recorded`, which no model answers for
/// (distill/recorded.h). Error(usage) with "did you mean" for an unknown one, or for a path that no kind takes.
const TeacherKind* teacher_kind(const TeacherOptions& options);
/// Error(usage) for options that the kind does not read; else as the kind's parts throw them.
OpenedTeacher open_teacher(const TeacherOptions& options, const TeacherPlace& place = {});

}  // namespace retort
