#include "data/chat_template.h"

#include <gtest/gtest.h>

#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"

namespace retort {
namespace {

TEST(ChatTemplate, RendersWhatTransformersRenders) {
  Json golden = read_json(std::filesystem::path(RETORT_GOLDEN) / "chat_templates.json");
  EXPECT_GE(golden["cases"].size(), 60u);
  for (const Json& c : golden["cases"]) {
    FakeTokenizer tokenizer(golden["templates"][c["template"].get<std::string>()]);
    std::vector<Message> messages;
    for (const Json& m : c["messages"]) messages.push_back({m[0], m[1]});
    EXPECT_EQ(ChatTemplate(tokenizer).render(messages, c["add_generation_prompt"]), c["text"]) << c.dump();
  }
}

TEST(ChatTemplate, DropsTheBosThatTheVocabularyAdds) {
  const std::string source = "{{ bos_token }}{{ messages[0]['content'] }}{{ bos_token }}";
  std::vector<Message> messages = {{"user", "hi"}};
  EXPECT_EQ(ChatTemplate(FakeTokenizer(source, false)).render(messages, false), "<s>hi<s>");
  EXPECT_EQ(ChatTemplate(FakeTokenizer(source, true)).render(messages, false), "hi<s>");
}

TEST(ChatTemplate, MovesASystemMessageWhereTheTemplateHasNone) {
  Json golden = read_json(std::filesystem::path(RETORT_GOLDEN) / "chat_templates.json");
  ChatTemplate gemma(FakeTokenizer(golden["templates"]["gemma"].get<std::string>()));
  std::vector<Message> messages = {{"system", "Be brief."}, {"user", "Hi"}};
  EXPECT_EQ(gemma.render(messages, true), "<s><start_of_turn>user\nBe brief.\nHi<end_of_turn>\n<start_of_turn>model\n");
  std::vector<Message> developer = {{"developer", "Be brief."}, {"user", "Hi"}};
  EXPECT_EQ(gemma.render(developer, true), gemma.render(messages, true));
}

TEST(ChatTemplate, GivesTypedContentToATemplateThatWantsIt) {
  ChatTemplate typed(
      FakeTokenizer("{% for m in messages %}{{ m['role'] }}:{% for part in m['content'] %}{% if part['type'] == "
                    "'text' %}{{ part['text'] }}{% endif %}{% endfor %};{% endfor %}"));
  std::vector<Message> messages = {{"user", "Hi"}};
  EXPECT_EQ(typed.render(messages, false), "user:Hi;");
}

TEST(ChatTemplate, AnOverrideReplacesTheModelsOwn) {
  FakeTokenizer tokenizer("own");
  EXPECT_EQ(ChatTemplate(tokenizer).render({}, false), "own");
  EXPECT_EQ(ChatTemplate(tokenizer, "other").render({}, false), "other");
  EXPECT_NE(ChatTemplate(tokenizer).hash(), ChatTemplate(tokenizer, "other").hash());
}

TEST(ChatTemplate, TheDateCountsWhereItIsPrinted) {
  FakeTokenizer dated("{{ strftime_now('%Y-%m-%d') }}"), plain("x");
  const std::time_t first = 1700000000, second = first + 400 * 86400;
  EXPECT_EQ(ChatTemplate(dated, "", first).render({}, false).substr(0, 7), "2023-11");
  EXPECT_NE(ChatTemplate(dated, "", first).hash(), ChatTemplate(dated, "", second).hash());
  EXPECT_EQ(ChatTemplate(plain, "", first).hash(), ChatTemplate(plain, "", second).hash());
}

TEST(ChatTemplate, SaysWhatIsWrong) {
  ChatTemplate none{FakeTokenizer()};
  expect_error(Exit::bad_input, {"no chat template", "data.chat_template"}, [&] { none.render({}, false); });
  expect_error(Exit::bad_input, {"chat template"}, [] { ChatTemplate(FakeTokenizer("{% if %}")); });
  expect_error(Exit::bad_input, {"roles must alternate"},
               [] { ChatTemplate(FakeTokenizer("{{ raise_exception('roles must alternate') }}")).render({}, false); });
  expect_error(Exit::bad_input, {"nests"}, [] { ChatTemplate{FakeTokenizer("{{" + std::string(5000, '(') + "}}")}; });
}

}  // namespace
}  // namespace retort
