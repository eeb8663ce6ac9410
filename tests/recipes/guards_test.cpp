// What names the rows that pass the guards.
#include "recipes/guards.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "tests/core/support.h"

namespace retort {
namespace {

TEST(GuardedHash, FollowsTheRowsThatAnEvaluatorHasOfItsOwn) {
  const TemporaryFolder folder;
  const std::string task = (folder / "task.yaml").string(), rows = (folder / "quiz.jsonl").string();
  write_atomic(task,
               "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: quiz.jsonl}}\n"
               "doc_to_text: q\ndoc_to_target: a\nmetric_list: [{metric: exact_match}]\n");
  write_atomic(folder / "recipe.yaml",
               "name: r\nmodel: {path: none.gguf}\nexport: {files: [{format: peft}]}\n"
               "data: {train: [{kind: jsonl, path: x.jsonl}], validation: [{kind: jsonl, path: y.jsonl}]}\n");
  const auto hash = [&](const std::string& quiz, const std::string& evaluate) {
    write_atomic(rows, quiz);
    const Recipe recipe = load_recipe(folder / "recipe.yaml", {"evaluate=[" + evaluate + "]"});
    return guarded_hash(guard_pass(recipe, {}, {}, {}), "train", "validation");
  };
  const std::string of_task = "{kind: task, path: " + task + "}", first = "{kind: task, limit: 1, path: " + task + "}";
  const std::string one = R"({"q": "1 + 1", "a": "2"})", two = one + "\n" + R"({"q": "1 + 2", "a": "3"})";
  EXPECT_EQ(hash(one, ""), hash(two, ""));
  EXPECT_NE(hash(one, ""), hash(one, of_task));
  EXPECT_NE(hash(one, of_task), hash(two, of_task));
  EXPECT_EQ(hash(one, first), hash(two, first));
  EXPECT_EQ(hash(two, of_task), hash(two, of_task));
}

}  // namespace
}  // namespace retort
