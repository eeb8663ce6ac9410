#include "data/chat_template.h"

#include "core/error.h"
#include "core/hash.h"

namespace retort {

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer, const std::string& source, std::time_t now)
    : source_(source.empty() ? tokenizer.chat_template() : source),
      bos_(tokenizer.bos() < 0 ? "" : tokenizer.piece(tokenizer.bos())),
      eos_(tokenizer.eos() < 0 ? "" : tokenizer.piece(tokenizer.eos())),
      adds_bos_(tokenizer.adds_bos()),
      now_(now) {
  if (source_.empty()) return;
  jinja_.emplace(source_, "chat template", Exit::bad_input);
  abilities_ = jinja_->chat_abilities();
}

// Follows common_chat_template_direct_apply_impl and the workarounds in common_chat_templates_apply_jinja
// (common/chat.cpp).
std::string ChatTemplate::render(std::span<const Message> messages, bool add_generation_prompt) const {
  if (!jinja_)
    fail(Exit::bad_input,
         "the model has no chat template, so messages cannot be rendered: give one under data.chat_template, or train "
         "on "
         "rows of plain text");
  std::vector<Message> given(messages.begin(), messages.end());
  if (source_.find("<|channel|>") == std::string::npos)
    for (Message& message : given)
      if (message.role == "developer") message.role = "system";
  if (!abilities_.system_role && !given.empty() && given[0].role == "system") {
    if (given.size() > 1) given[1].content = given[0].content + "\n" + given[1].content;
    given.erase(given.begin());
  }
  Json list = Json::array();
  for (const Message& message : given) {
    Json content = message.content;
    if (abilities_.typed_content_only)
      content = Json::array({Json::object({{"type", "text"}, {"text", message.content}})});
    list.push_back(Json::object({{"role", message.role}, {"content", content}}));
  }
  Json globals = {{"messages", list}, {"bos_token", bos_}, {"eos_token", eos_}, {"enable_thinking", true}};
  if (add_generation_prompt) globals["add_generation_prompt"] = true;
  std::string text = jinja_->render(globals, now_);
  if (adds_bos_ && !bos_.empty() && text.starts_with(bos_)) text.erase(0, bos_.size());
  return text;
}

std::string ChatTemplate::hash() const {
  Json parts = {{"source", source_}, {"bos", bos_}, {"eos", eos_}, {"adds_bos", adds_bos_}};
  if (source_.find("strftime_now") != std::string::npos) parts["now"] = now_;
  return sha256_hex(parts.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace retort
