// A model of our families in LibTorch: a Hugging Face folder or a GGUF file, with a PEFT adapter when one is named.
#include "adapters/peft.h"
#include "core/error.h"
#include "distill/torch_teacher.h"

namespace retort {
namespace {

bool accepts(const std::filesystem::path& path) { return std::filesystem::is_directory(path); }

OpenedTeacher open(const TeacherOptions& options, const TeacherPlace& place) {
  const auto checkpoint = Checkpoint::open(options.path);
  std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::open(options.path);
  const TeacherIdentity identity = torch_identity(*checkpoint, options.adapter, *tokenizer);
  auto model = CausalLM::load(*checkpoint, place.load);
  if (!options.adapter.empty()) load_peft(options.adapter, *model, checkpoint->hash());
  CausalLM& lent = *model;
  return {torch_teacher(lent, std::move(model), {}, identity, options.path.string()), tokenizer};
}

}  // namespace

extern const TeacherKind teacher_huggingface;
const TeacherKind teacher_huggingface = {
    "huggingface", "a model of the supported families in LibTorch, with a PEFT adapter when one is named", accepts,
    open};

}  // namespace retort
