// A GGUF file in llama.cpp: any architecture and quantization that it serves.
#include <ATen/ATen.h>

#include "core/error.h"
#include "core/hash.h"
#include "distill/model_hash.h"
#include "distill/teacher.h"
#include "models/gguf.h"
#include "models/served.h"

namespace retort {
namespace {

class GgufTeacher final : public Teacher {
 public:
  GgufTeacher(const TeacherOptions& options, const Tokenizer& tokenizer)
      : name_(options.path.string()),
        model_(ServedModel::open(options.path, {.threads = static_cast<int>(options.threads),
                                                .gpu_layers = static_cast<int>(options.gpu_layers),
                                                .adapter = options.adapter})) {
    const auto file = GgufFile::open(options.path);
    identity_ = {hash_of(*file), main_type(file->tensors()), tokenizer.hash(), "llama.cpp", model_->vocab()};
    if (!options.adapter.empty()) identity_.hash = sha256_hex(identity_.hash + sha256_file(options.adapter));
  }

  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return model_->vocab(); }
  ServedModel* served() override { return model_.get(); }

  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    std::vector<ServedRequest> requests;
    std::vector<size_t> numbers;
    for (size_t d = 0; d < documents.size(); ++d) {
      if (wanted[d].empty()) continue;
      requests.push_back({documents[d], wanted[d], 0, {}});
      numbers.push_back(d);
    }
    const auto checked = [&](size_t i, const at::Tensor& logits) {
      check_logits(logits, name_, numbers[i], requests[i].wanted);
      each(numbers[i], logits);
    };
    if (requests.size() == 1)  // a piece of a long document goes on where the one before ended
      checked(0, model_->logits(requests[0].ids, requests[0].wanted));
    else
      model_->run(requests, checked);
  }

 private:
  std::string name_;
  std::unique_ptr<ServedModel> model_;
  TeacherIdentity identity_;
};

bool accepts(const std::filesystem::path& path) { return path.extension() == ".gguf"; }

OpenedTeacher open(const TeacherOptions& options, const TeacherPlace&) {
  if (std::filesystem::is_directory(options.adapter))
    fail(Exit::usage,
         "teacher.adapter: {} is a folder; llama.cpp reads adapters as GGUF files (`retort export` makes one), and "
         "kind: huggingface reads PEFT folders",
         options.adapter.string());
  std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::open(options.path);
  return {std::make_unique<GgufTeacher>(options, *tokenizer), tokenizer};
}

}  // namespace

extern const TeacherKind teacher_gguf;
const TeacherKind teacher_gguf = {"gguf", "a GGUF file in llama.cpp: any architecture and quantization", accepts, open,
                                  true};

}  // namespace retort
