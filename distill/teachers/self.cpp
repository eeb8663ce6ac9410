// The student's own base, with another adapter or none: no second copy of the weights.
#include "adapters/peft.h"
#include "core/error.h"
#include "distill/torch_teacher.h"

namespace retort {
namespace {

bool accepts(const std::filesystem::path& path) { return path.empty(); }

OpenedTeacher open(const TeacherOptions& options, const TeacherPlace& place) {
  if (!options.path.empty())
    fail(Exit::usage, "teacher.path: {}: a teacher of kind self is the student's own base; leave the path out",
         options.path.string());
  if (!place.student || !place.checkpoint || !place.tokenizer)
    fail(Exit::usage, "teacher.kind: self: there is no student whose base it could share");
  AdapterSet adapters;
  if (!options.adapter.empty()) {
    const LentAdapters lent(*place.student, adapters);  // what is loaded meanwhile stays in `adapters`
    load_peft(options.adapter, *place.student, place.checkpoint->hash());
  }
  TeacherIdentity identity = torch_identity(*place.checkpoint, options.adapter, *place.tokenizer);
  const std::shared_ptr<const Tokenizer> tokenizer(place.tokenizer, [](const Tokenizer*) {});
  return {torch_teacher(*place.student, nullptr, std::move(adapters), std::move(identity),
                        place.checkpoint->path().string()),
          tokenizer};
}

}  // namespace

extern const TeacherKind teacher_self;
const TeacherKind teacher_self = {"self", "the student's own base, with another adapter or none", accepts, open};

}  // namespace retort
