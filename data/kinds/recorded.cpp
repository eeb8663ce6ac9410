// Recorded answers of a model behind a service, as rows to train on: sequence-level distillation.
#include "data/recorded.h"

#include "data/dataset.h"

namespace retort {
namespace {

std::vector<std::filesystem::path> files(const DatasetOptions& options) { return {options.path}; }

Stream<Row> open(const DatasetOptions& options) {
  return [answers = read_recorded(options.path), answer = RecordedAnswer()](Row& row) mutable {
    if (!answers(answer)) return false;
    Json messages = Json::array();
    for (const Message& message : answer.messages)
      messages.push_back({{"role", message.role}, {"content", message.content}});
    row.place = answer.place;
    row.fields = {{"messages", std::move(messages)}, {"model", answer.model}};
    return true;
  };
}

}  // namespace

extern const DatasetKind dataset_recorded{
    .summary = "JSON Lines: questions with a service's recorded answers (docs/distillation.md)",
    .fields = "`messages` with the answer at the end, `model`",
    .options = {},
    .files = files,
    .open = open,
};

}  // namespace retort
