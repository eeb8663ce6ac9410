// Recorded answers: the forms in which services give them, and what is missing or contradicts itself.
#include "data/recorded.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/files.h"
#include "data/dataset.h"
#include "tests/core/support.h"

namespace retort {
namespace {

/// A line that is written on several.
std::string line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

class Recorded : public testing::Test {
 protected:
  std::vector<RecordedAnswer> read(const std::string& text) {
    write_atomic(folder_ / "answers.jsonl", text);
    std::vector<RecordedAnswer> all;
    Stream<RecordedAnswer> stream = read_recorded(folder_ / "answers.jsonl");
    for (RecordedAnswer answer; stream(answer);) all.push_back(answer);
    return all;
  }
  void refused(const std::string& line, std::vector<std::string> parts) {
    parts.push_back("answers.jsonl:2: ");
    expect_error(Exit::bad_input, parts, [&] { read(good_ + "\n" + line); });
  }
  const std::string good_ = R"({"prompt": "Hi?", "completion": "Yes."})";
  TemporaryFolder folder_;
};

TEST_F(Recorded, ThreeFormsSayTheSame) {
  const auto answers =
      read(good_ + "\n\n" +
           R"({"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]})" + "\n" +
           line(R"({"messages": [{"role": "user", "content": "Hi?"}], "response": {"model": "big-1", "choices": [
               {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop", "logprobs": null}]}})") +
           "\n" + R"({"prompt": "Hi?", "response": {"body": {"choices": [{"message": {"content": "Yes."}}]}}})");
  ASSERT_EQ(answers.size(), 4u);
  for (const RecordedAnswer& answer : answers) {
    ASSERT_EQ(answer.messages.size(), 2u);
    EXPECT_EQ(answer.messages[0].content, "Hi?");
    EXPECT_EQ(answer.messages[1].role, "assistant");
    EXPECT_EQ(answer.messages[1].content, "Yes.");
    EXPECT_TRUE(answer.tokens.empty());
  }
  EXPECT_EQ(answers[2].model, "big-1");
  EXPECT_TRUE(answers[2].place.ends_with("answers.jsonl:4"));
}

TEST_F(Recorded, LogProbabilitiesHaveBytes) {
  const auto answers =
      read(line(R"({"prompt": "Hi?", "choices": [{"message": {"content": "\u00e9!"}, "logprobs": {"content": [
        {"token": "\\xc3", "bytes": [195], "logprob": -0.5, "top_logprobs": [
          {"token": "\\xc3", "bytes": [195], "logprob": -0.5}, {"token": "e", "bytes": null, "logprob": -1.5}]},
        {"token": "\\xa9", "bytes": [169], "logprob": 0.0, "top_logprobs": []},
        {"token": "!", "logprob": -0.25}]}}]})"));
  ASSERT_EQ(answers.size(), 1u);
  ASSERT_EQ(answers[0].tokens.size(), 3u);
  EXPECT_EQ(answers[0].tokens[0].bytes, "\xC3");
  EXPECT_EQ(answers[0].tokens[0].top[1], (std::pair<std::string, double>("e", -1.5)));
  EXPECT_EQ(answers[0].tokens[2].bytes, "!");
  EXPECT_EQ(answers[0].tokens[2].log_p, -0.25);
}

TEST_F(Recorded, AreRowsToTrainOn) {
  write_atomic(folder_ / "answers.jsonl", good_);
  const DatasetOptions options{.kind = "recorded", .path = folder_ / "answers.jsonl"};
  Stream<Chat> chats = open_chats(options);
  Chat chat;
  ASSERT_TRUE(chats(chat));
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[1].content, "Yes.");
  EXPECT_FALSE(chats(chat));
}

TEST_F(Recorded, MissingFieldsAreNamed) {
  refused(R"({"completion": "Yes."})", {"`messages` and `prompt`", "none"});
  refused(R"({"prompt": "Hi?"})", {"there is no answer"});
  refused(R"({"prompt": "Hi?", "completion": ""})", {"the answer is empty"});
  refused(R"({"messages": [{"role": "assistant", "content": "Yes."}]})", {"messages: there is no question"});
  refused(R"({"messages": [{"content": "Hi?"}], "completion": "a"})", {"messages[0].role is missing"});
  refused(R"({"prompt": "Hi?", "response": {"id": 3}})", {"response.choices is missing"});
  refused(R"({"prompt": "Hi?", "choices": [{"message": {"role": "assistant"}}]})",
          {"choices[0].message.content is missing"});
  refused(R"({"prompt": "Hi?", "completion": "a", "logprobs": {"content": [{"token": "a"}]}})",
          {"logprobs.content[0].logprob is missing"});
  refused(R"({"prompt": "Hi?", "completion": "a", "logprobs": {"content": [{"logprob": -1}]}})",
          {"logprobs.content[0].token is missing"});
  refused("[]", {"array", "object"});
  refused("{", {"JSON"});
}

TEST_F(Recorded, ContradictionsAreNamed) {
  refused(R"({"prompt": "Hi?", "messages": [], "completion": "a"})", {"both"});
  refused(R"({"prompt": "Hi?", "completion": "a", "choices": [{"message": {"content": "b"}}]})",
          {"choices[0].message.content is a second answer", "completion gives one already"});
  refused(
      R"({"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "a"}], "completion": "b"})",
      {"completion is a second answer"});
  refused(R"({"messages": [{"role": "robot", "content": "Hi?"}], "completion": "a"})", {"messages[0].role", "robot"});
  refused(R"({"prompt": "Hi?", "choices": [{"message": {"content": "a"}, "finish_reason": "length"}]})",
          {"choices[0].finish_reason", "\"length\"", "did not end"});
  refused(R"({"prompt": "Hi?", "choices": []})", {"choices has 0 answers"});
  const auto with = [](const std::string& tokens) {
    return R"({"prompt": "Hi?", "completion": "ab", "logprobs": {"content": [)" + tokens + "]}}";
  };
  refused(with(R"({"token": "a", "logprob": -1}, {"token": "c", "logprob": -1})"),
          {"logprobs.content: the tokens' bytes are not the answer", "byte 1"});
  refused(with(R"({"token": "ab", "logprob": 0.5})"), {"logprobs.content[0].logprob", "0.5"});
  refused(with(R"({"token": "ab", "logprob": "x"})"), {"logprobs.content[0].logprob", "number"});
  refused(with(R"({"token": "ab", "bytes": [97, 300], "logprob": -1})"), {"logprobs.content[0].bytes[1]", "300"});
  refused(with(R"({"token": "ab", "logprob": -1, "top_logprobs": [{"token": "ab", "logprob": -2}]})"),
          {"logprobs.content[0].top_logprobs[0].logprob is -2", "is -1"});
  refused(
      with(
          R"({"token": "ab", "logprob": -1, "top_logprobs": [{"token": "x", "logprob": -2}, {"token": "x", "logprob": -2}]})"),
      {"top_logprobs[1]", "already"});
  refused(
      with(
          R"({"token": "ab", "logprob": -1, "top_logprobs": [{"token": "x", "logprob": -0.1}, {"token": "y", "logprob": -0.1}]})"),
      {"top_logprobs", "sum to 1.81"});
}

}  // namespace
}  // namespace retort
