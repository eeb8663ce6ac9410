// The gate on text: what the file's own vocabulary and chat template make of it.
#include <algorithm>

#include "core/error.h"
#include "data/sentencepiece.h"
#include "export/gate.h"

namespace retort {
namespace {

std::string shown(const std::string& text) {
  return Json(text.substr(0, 60)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// "token 17 is 1234 ("ing") where the trainer has 99 ("in")".
std::string first_difference(const Tokenizer& trained, const std::vector<int32_t>& expected, const Tokenizer& shipped,
                             const std::vector<int32_t>& found) {
  auto [a, b] = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
  auto name = [](const Tokenizer& tokenizer, auto at, auto end) {
    return at == end ? std::string("the end") : fmt::format("{} ({})", *at, shown(tokenizer.piece(*at)));
  };
  return fmt::format("token {} is {} where the trainer has {}", a - expected.begin(), name(shipped, b, found.end()),
                     name(trained, a, expected.end()));
}

void compare_special_tokens(const Tokenizer& trained, const Tokenizer& shipped, std::vector<std::string>& reasons) {
  auto compare = [&](const char* what, int64_t expected, int64_t found) {
    if (expected != found)
      reasons.push_back(fmt::format("vocabulary: {} is {}, the trainer's is {}", what, found, expected));
  };
  compare("the number of tokens", trained.size(), shipped.size());
  compare("BOS", trained.bos(), shipped.bos());
  compare("EOS", trained.eos(), shipped.eos());
  compare("add_bos", trained.adds_bos(), shipped.adds_bos());
  compare("add_eos", trained.adds_eos(), shipped.adds_eos());
  for (int32_t id = 0; id < std::min(trained.size(), shipped.size()); ++id) {
    if (trained.piece(id) != shipped.piece(id)) {
      reasons.push_back(fmt::format("vocabulary: token {} is {}, the trainer's is {}", id, shown(shipped.piece(id)),
                                    shown(trained.piece(id))));
      return;  // one names the fault; thousands would follow
    }
    if (trained.ends_generation(id) != shipped.ends_generation(id)) {
      reasons.push_back(fmt::format("vocabulary: token {} ({}) {} generation in the file, not so in the trainer", id,
                                    shown(trained.piece(id)), shipped.ends_generation(id) ? "ends" : "does not end"));
    }
  }
}

}  // namespace

void compare_text(const GateReference& reference, const std::filesystem::path& path, std::span<const GateRow> rows,
                  GateReport& report) {
  const std::unique_ptr<Tokenizer> shipped = Tokenizer::open(path);
  const ChatTemplate chat_template(*shipped, "", reference.now);
  compare_special_tokens(reference.tokenizer, *shipped, report.reasons);

  std::vector<std::string> texts = hard_texts();
  std::vector<std::string> places(texts.size(), "hard texts");
  bool same_template = true;
  for (const GateRow& row : rows) {
    if (row.chat.messages.empty()) {
      texts.push_back(row.chat.text);
      places.push_back(row.chat.place);
      continue;
    }
    const std::string expected = reference.chat_template.render(row.chat.messages, false);
    texts.push_back(expected);
    places.push_back(row.chat.place);
    if (!same_template) continue;
    std::string found;
    try {
      found = chat_template.render(row.chat.messages, false);
    } catch (const Error& error) {
      report.reasons.push_back(fmt::format("chat template: {}", error.what()));
      same_template = false;
      continue;
    }
    std::span<const Message> question(row.chat.messages);
    if (question.back().role == "assistant") question = question.first(question.size() - 1);
    if (found != expected ||
        (!question.empty() && chat_template.render(question, true) != reference.chat_template.render(question, true))) {
      auto [a, b] = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
      report.reasons.push_back(fmt::format("chat template: {} renders to {} at byte {} where the trainer's has {}",
                                           row.chat.place, shown({b, found.end()}), a - expected.begin(),
                                           shown({a, expected.end()})));
      same_template = false;
    }
  }
  int64_t different = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int32_t> expected = reference.tokenizer.encode(texts[i], true, true);
    const std::vector<int32_t> found = shipped->encode(texts[i], true, true);
    if (expected == found) continue;
    if (different++ > 0) continue;
    report.reasons.push_back(fmt::format("tokens: of {} ({}), {}", shown(texts[i]), places[i],
                                         first_difference(reference.tokenizer, expected, *shipped, found)));
  }
  if (different > 1) report.reasons.push_back(fmt::format("tokens: {} of {} texts differ", different, texts.size()));
  report.texts = static_cast<int64_t>(texts.size());
}

}  // namespace retort
