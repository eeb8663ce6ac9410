// The sample rows, side by side: what all questions share is shown once.
#include <algorithm>
#include <vector>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

std::string trimmed(const std::string& text) {
  size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// What all questions begin or end with, in whole lines: shown once instead of a dozen times.
struct Around {
  std::string before, after;
};

Around common_lines(const std::vector<std::string>& prompts) {
  if (prompts.size() < 2) return {};
  const std::string& first = prompts.front();
  size_t before = first.size(), after = first.size();
  for (const std::string& prompt : prompts) {
    size_t most = std::min(first.size(), prompt.size()), same = 0;
    while (same < most && first[same] == prompt[same]) ++same;
    before = std::min(before, same);
    for (same = 0; same < most && first[first.size() - 1 - same] == prompt[prompt.size() - 1 - same];) ++same;
    after = std::min(after, same);
  }
  size_t line_end = first.substr(0, before).rfind('\n');
  size_t line_start = first.find_first_of("\n<", first.size() - after);  // or a special token such as <|im_end|>
  Around around;
  if (line_end != std::string::npos) around.before = first.substr(0, line_end + 1);
  if (line_start != std::string::npos && line_start > line_end + 1) around.after = first.substr(line_start);
  return around;
}

}  // namespace

Json samples_view(const Json& report) {
  std::vector<std::string> prompts;
  for (const Json& sample : list_at(report, "/samples")) prompts.push_back(text_at(sample, "/prompt"));
  if (prompts.empty()) return nullptr;
  const Around around = common_lines(prompts);
  Json rows = Json::array();
  for (const Json& sample : list_at(report, "/samples")) {
    std::string expected = text_at(sample, "/expected"), prompt = text_at(sample, "/prompt");
    size_t around_size = around.before.size() + around.after.size();
    if (prompt.size() >= around_size) prompt = prompt.substr(around.before.size(), prompt.size() - around_size);
    Json answers = Json::array();
    for (const char* on : {"base", "tuned"}) {
      if (value_at(sample, std::string("/") + on).is_null()) continue;
      std::string answer = text_at(sample, std::string("/") + on);
      bool right = trimmed(answer) == trimmed(expected);
      answers.push_back({{"on", on == std::string("base") ? "Base" : "Tuned"},
                         {"text", answer},
                         {"mark", expected.empty() ? ""
                                  : right          ? "right"
                                                   : "wrong"}});
    }
    rows.push_back(
        {{"key", text_at(sample, "/key")}, {"prompt", trimmed(prompt)}, {"expected", expected}, {"answers", answers}});
  }
  return {{"before", around.before}, {"after", around.after}, {"rows", rows}};
}

}  // namespace retort
