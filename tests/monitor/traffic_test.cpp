// Serving logs are read as they come, and what cannot be read is said with its line.
#include "monitor/traffic.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "tests/core/support.h"

namespace retort {
namespace {

std::vector<TrafficRow> read(const std::string& text) {
  TemporaryFolder folder;
  write_atomic(folder / "log.jsonl", text);
  std::vector<TrafficRow> rows;
  const auto stream = read_traffic(folder / "log.jsonl");
  for (TrafficRow row; stream(row);) rows.push_back(row);
  return rows;
}

void expect_refused(const std::string& text, const std::vector<std::string>& parts) {
  expect_error(Exit::bad_input, parts, [&] { read(text); });
}

TEST(Traffic, PromptsAloneOrWithAnswers) {
  const auto rows = read(
      "{\"text\": \"one\"}\n\n"
      "{\"prompt\": \"two\", \"system\": \"be brief\", \"answer\": \"2\", \"label\": \"2\", \"time\": \"2026-11-23\"}\n"
      "{\"prompt\": \"three\", \"response\": \"3\", \"user_id\": 7, \"timestamp\": 1764000000}\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].text, "one");
  EXPECT_FALSE(rows[0].answer || rows[0].label || rows[0].day);
  EXPECT_TRUE(rows[0].place.ends_with("log.jsonl:1"));
  EXPECT_EQ(rows[1].text, "be brief\n\ntwo");
  EXPECT_EQ(rows[1].answer, "2");
  EXPECT_EQ(rows[1].label, "2");
  EXPECT_EQ(rows[1].day, day_of("2026-11-23"));
  EXPECT_TRUE(rows[2].place.ends_with("log.jsonl:4"));
  EXPECT_EQ(rows[2].answer, "3");
  EXPECT_EQ(rows[2].day, day_of("2025-11-24"));  // 1764000000 s = 2025-11-24 16:00 UTC
}

TEST(Traffic, ChatCompletionsRequestsAndResponses) {
  const auto rows = read(
      R"({"request": {"model": "m", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": )"
      R"([{"type": "text", "text": "U"}, {"type": "image_url", "image_url": {"url": "x"}}]}]}, "response": )"
      R"({"created": 1764000000, "choices": [{"finish_reason": "length", "message": {"role": "assistant", "content": )"
      R"("A"}}]}})"
      "\n"
      R"({"request": {"body": {"messages": [{"role": "user", "content": "Q"}]}}, "response": {"body": {"choices": )"
      R"([{"message": {"content": null, "tool_calls": []}}]}}})"
      "\n"
      R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "earlier"}, )"
      R"({"role": "user", "content": "again"}, {"role": "assistant", "content": "bye"}]})");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].text, "S\n\nU");
  EXPECT_EQ(rows[0].answer, "A");
  EXPECT_EQ(rows[0].day, day_of("2025-11-24"));
  EXPECT_EQ(rows[1].text, "Q");
  EXPECT_EQ(rows[1].answer, "");
  EXPECT_EQ(rows[2].text, "hi\n\nearlier\n\nagain");
  EXPECT_EQ(rows[2].answer, "bye");
}

TEST(Traffic, BrokenLinesAreNamed) {
  expect_refused("{\"text\": \"one\"}\n{\"text\": \n", {"log.jsonl:2"});
  expect_refused("{\"text\": \"one\"}\n[1]\n", {"log.jsonl:2", "object"});
  expect_refused("{\"id\": 1}\n", {"log.jsonl:1", "nothing was asked"});
  expect_refused("{\"prompt\": \" \"}\n", {"log.jsonl:1", "empty"});
  expect_refused("{\"prompt\": 5}\n", {"log.jsonl:1", "prompt", "number"});
  expect_refused("{\"messages\": {}}\n", {"messages", "list"});
  expect_refused("{\"messages\": [{\"content\": \"x\"}]}\n", {"messages[0].role"});
  expect_refused("{\"messages\": [{\"role\": \"user\", \"content\": 3}]}\n", {"messages[0].content"});
  expect_refused("{\"prompt\": \"x\", \"choices\": []}\n", {"choices"});
  expect_refused("{\"prompt\": \"x\", \"response\": 4}\n", {"response", "object"});
  expect_refused("{\"prompt\": \"x\", \"time\": \"yesterday\"}\n", {"time", "yesterday"});
  expect_refused("{\"prompt\": \"x\", \"time\": \"2026-02-30\"}\n", {"time"});
  expect_refused("{\"prompt\": \"x\", \"time\": 1764000000000000}\n", {"time"});
  expect_refused("{\"prompt\": \"x\", \"label\": []}\n", {"label"});
  expect_refused("{\"prompt\": \"\xff\"}\n", {"log.jsonl:1"});
}

TEST(Traffic, DatesAreRealDays) {
  EXPECT_TRUE(day_of("2024-02-29"));
  EXPECT_TRUE(day_of("2026-11-23T23:59:59Z"));
  for (const char* text : {"", "2026", "2026-11-2", "2026-13-01", "2026-00-10", "2025-02-29", "2026/11/23",
                           "2026-11-231", "-026-11-23", "+026-11-23"})
    EXPECT_FALSE(day_of(text)) << text;
}

}  // namespace
}  // namespace retort
