// JSON Lines: one object a line.
#include "data/dataset.h"
#include "data/text_input.h"

namespace retort {
namespace {

std::vector<std::filesystem::path> files(const DatasetOptions& options) { return {options.path}; }

Stream<Row> open(const DatasetOptions& options) {
  auto lines = std::make_shared<LineReader>(options.path);
  return [lines, line = std::string()](Row& row) mutable {
    while (lines->next(line)) {
      if (trim(line).empty()) continue;
      row.place = lines->place();
      row.fields = parse_json(line, row.place);
      if (!row.fields.is_object())
        fail(Exit::bad_input, "{}: expected an object a line, found {}", row.place, row.fields.type_name());
      return true;
    }
    return false;
  };
}

}  // namespace

extern const DatasetKind dataset_jsonl{
    .summary = "JSON Lines: one object a line",
    .fields = "the object's keys; without a task: `messages`, or `prompt` and `completion`, or `text`",
    .options = {},
    .files = files,
    .open = open,
};

}  // namespace retort
