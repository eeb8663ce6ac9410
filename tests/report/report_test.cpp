// The page: every figure is on it, nothing in it is code from the data, and it loads nothing.
#include <gtest/gtest.h>
#include <re2/re2.h>

#include "core/files.h"
#include "report/embedded.h"
#include "report/format.h"
#include "report/report.h"

namespace retort {
namespace {

Json sample() { return read_json(RETORT_GOLDEN "/report_sample.json"); }

// The page without Chart.js, which is not ours to judge.
std::string without_chart_js(std::string page) {
  size_t at = page.find(report_chart_js);
  EXPECT_NE(at, std::string::npos) << "Chart.js is not in the page";
  return page.erase(at, std::string(report_chart_js).size());
}

bool has(const std::string& page, const std::string& text) { return page.find(text) != std::string::npos; }

int64_t count(const std::string& page, const std::string& text) {
  int64_t found = 0;
  for (size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) ++found;
  return found;
}

// Every leaf of the report as the texts that may stand for it on the page.
void expect_shown(const std::string& page, const Json& value, const std::string& where) {
  if (value.is_structured()) {
    for (const auto& [key, item] : value.items()) expect_shown(page, item, where + "/" + key);
    return;
  }
  std::vector<std::string> forms = {escape_html(show_any(value))};
  if (value.is_number())
    for (int digits : {3, 4}) forms.push_back(show_number(value, digits));
  if (value.is_number())
    forms.insert(forms.end(), {show_count(value), show_percent(value), show_bytes(value), show_seconds(value)});
  if (where.ends_with("/on") && value.get<std::string>() == "base") forms = {"Base model"};
  if (where.ends_with("/on") && value.get<std::string>() == "trained") forms = {"Trained"};
  if (where.ends_with("/on") && value.get<std::string>().starts_with("shipped:"))
    forms = {"Shipped " + value.get<std::string>().substr(8)};
  if (where.ends_with("/kind") && where.starts_with("/evaluate")) forms = {"Choice accuracy", "Perplexity"};
  if (where.ends_with("/format")) forms = {">GGUF", ">PEFT adapter"};
  if (where.ends_with("/f32_merge/type")) forms = {"in F32"};
  if (where.ends_with("/passed")) forms = {value.get<bool>() ? "gate passed" : "gate refused"};
  EXPECT_TRUE(std::any_of(forms.begin(), forms.end(), [&](const std::string& form) { return has(page, form); }))
      << where << " = " << value << " is not on the page";
}

TEST(Report, ShowsTeacherAndStudent) {
  Json report = sample();
  EXPECT_FALSE(has(render_report(report), "Teacher and student"));
  const auto measured = [](double kl, double agreement, double entropy, double first, double second) {
    return Json{{{"tokens", 5821},
                 {"divergence", kl},
                 {"agreement", agreement},
                 {"cross_entropy", entropy},
                 {"by_position",
                  {{{"from", 0}, {"tokens", 421}, {"divergence", first}},
                   {{"from", 16}, {"tokens", 5400}, {"divergence", second}},
                   {{"from", 64}, {"tokens", 0}, {"divergence", nullptr}}}}}};
  };
  report["distill"] = {{"loss", "skew_kl"},
                       {"temperature", 2.5},
                       {"kd_ratio", 0.85},
                       {"estimator", "clustered"},
                       {"teachers",
                        {{{"path", "big-teacher.gguf"},
                          {"weight", 0.75},
                          {"vocabulary", "49,152 tokens, the same"},
                          {"engine", "llama.cpp"},
                          {"quantization", "Q5_K"},
                          {"sha256", "0123abcd"},
                          {"error", {{"mean_kl", 0.0123}}},
                          {"cache", {{"positions", 126090}, {"bytes_per_position", 46.7}, {"tail_mass", 0.235}}}}}},
                       {"before", measured(3.21, 0.412, 5.43, 4.56, 2.34)},
                       {"after", measured(0.987, 0.654, 2.71, 1.23, 0.876)}};
  const std::string page = without_chart_js(render_report(report));
  for (const std::string& text : {std::string("Teacher and student"),
                                  std::string("skew_kl"),
                                  std::string("2.5"),
                                  std::string("0.85"),
                                  std::string("clustered"),
                                  std::string("big-teacher.gguf"),
                                  std::string("0.75"),
                                  std::string("49,152 tokens, the same"),
                                  std::string("Q5_K"),
                                  std::string("0123abcd"),
                                  std::string("0.0123"),
                                  std::string("126,090"),
                                  std::string("46.7"),
                                  show_percent(0.235),
                                  std::string("3.21"),
                                  std::string("0.987"),
                                  show_percent(0.412),
                                  show_percent(0.654),
                                  std::string("5.43"),
                                  std::string("2.71"),
                                  std::string("4.56"),
                                  std::string("1.23"),
                                  std::string("2.34"),
                                  std::string("0.876"),
                                  std::string("5,400")})
    EXPECT_TRUE(has(page, text)) << text;
}

TEST(Report, ShowsTeachersThatAreNotComparedTokenByToken) {
  Json report = sample();
  const auto spans = [](double divergence) {
    return Json{{"spans", 300}, {"divergence", divergence}, {"cross_entropy", 2.5}};
  };
  report["distill"] = {{"loss", "spans"},
                       {"teachers",
                        {{{"path", "answers.jsonl"}, {"vocabulary", "recorded answers: 7"}},
                         {{"path", "gemma.gguf"}, {"aligned", {{"tokens", 1234}, {"of", 5678}}}}}},
                       {"before", {nullptr, spans(-2.2e-9)}},
                       {"after", {nullptr, spans(0.0694)}}};
  const std::string page = without_chart_js(render_report(report));
  for (const std::string& text : {std::string("recorded answers: 7"), std::string("nats a stretch"), std::string(">0<"),
                                  std::string("0.0694"), std::string("1,234 of 5,678")})
    EXPECT_TRUE(has(page, text)) << text;
  EXPECT_FALSE(has(page, "KL from the teacher")) << "stretches of text are no tokens, recorded answers have none";
  EXPECT_FALSE(has(page, "Same most likely token"));
}

TEST(Report, ShowsEveryKey) {
  Json report = sample();
  const std::string page = without_chart_js(render_report(report));
  report.erase("schema");
  // The table and the chart take the curve in turn: its points are checked on their own.
  const Json curve = report["train"]["curve"];
  report["train"].erase("curve");
  report["chat"].erase("system");
  // The lines that all questions share are shown once.
  const std::string shared = "Which category does this entry of a dictionary of computing belong to?\n\n";
  EXPECT_EQ(count(page, shared), 1);
  for (Json& sample : report["samples"]) sample["prompt"] = sample["prompt"].get<std::string>().substr(shared.size());
  expect_shown(page, report, "");
  EXPECT_TRUE(has(page, fmt::format("[{},{},null,", curve[3]["step"].dump(), curve[3]["loss"].dump())));
  EXPECT_TRUE(has(page, show_number(curve.back()["validation_loss"], 4)));
  for (const Json& command : serve_commands(sample())) EXPECT_TRUE(has(page, escape_html(command["code"])));
}

TEST(Report, NothingOfTheDataBecomesCode) {
  Json report = sample();
  const std::string evil = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&{{ 7 * 6 }}{% raw %}";
  // Every text of the report, wherever it stands, and the keys that are shown.
  std::function<void(Json&)> poison = [&](Json& value) {
    if (value.is_string()) value = value.get<std::string>() + evil;
    if (value.is_structured())
      for (auto& item : value) poison(item);
  };
  const std::string clean = without_chart_js(render_report(report));
  poison(report);
  report["environment"][evil] = 1;
  report["data"]["ledger"]["dropped"][evil] = 1;
  for (Json& entry : report["evaluate"]) entry["on"] = "shipped:" + evil;
  for (Json& file : report["export"]) file["format"] = "gguf";
  const std::string page = without_chart_js(render_report(report));
  EXPECT_TRUE(has(page, "alert(2)")) << "the texts are shown";
  EXPECT_EQ(count(page, "<script"), count(clean, "<script"));
  EXPECT_EQ(count(page, "</script"), count(clean, "</script"));
  EXPECT_EQ(count(page, "<img"), 0);
  EXPECT_FALSE(re2::RE2::PartialMatch(page, R"(<(?:[^>"]|"[^"]*")*\sonerror)"));
  EXPECT_TRUE(has(page, "{{ 7 * 6 }}")) << "the data are not a template";
}

TEST(Report, LoadsNothing) {
  const std::string page = render_report(sample());
  const std::string ours = without_chart_js(page);
  for (const char* pattern :
       {R"((?i)<[^>]*\s(?:src|srcset|data|poster|action)\s*=)", R"((?i)<(?:iframe|object|embed|img|base)\b)",
        R"((?i)@import|url\()", R"(\b(?:fetch|XMLHttpRequest|importScripts|WebSocket)\b)"})
    EXPECT_FALSE(re2::RE2::PartialMatch(ours, pattern)) << pattern;
  re2::StringPiece rest(ours);
  for (std::string target; re2::RE2::FindAndConsume(&rest, R"((?i)\shref\s*=\s*"([^"]*)\")", &target);)
    EXPECT_TRUE(target.starts_with("#") || target == "data:,") << target;
  // Chart.js must not end its element early.
  EXPECT_FALSE(has(report_chart_js, "</script"));
  EXPECT_FALSE(re2::RE2::PartialMatch(report_chart_js, R"(\b(?:fetch|XMLHttpRequest|importScripts|WebSocket)\s*\()"));
}

TEST(Report, AnyKeyMayBeMissing) {
  EXPECT_TRUE(has(render_report(Json::object()), "</html>"));
  // Without each key, and with each key of another type, at every depth.
  Json whole = sample();
  for (Json* list : {&whole["train"]["curve"], &whole["samples"]}) list->erase(list->begin() + 2, list->end());
  std::vector<std::string> pointers;
  std::function<void(const Json&, const std::string&)> collect = [&](const Json& value, const std::string& at) {
    if (!at.empty()) pointers.push_back(at);
    if (value.is_object())
      for (const auto& [key, item] : value.items()) collect(item, at + "/" + key);
    else if (value.is_array() && !value.empty())
      collect(value[0], at + "/0");
  };
  collect(whole, "");
  EXPECT_GT(pointers.size(), 100u);
  for (const std::string& pointer : pointers) {
    Json::json_pointer at(pointer);
    Json missing = whole;
    Json& parent = missing[at.parent_pointer()];
    parent.is_object() ? static_cast<void>(parent.erase(at.back())) : parent.erase(0);
    EXPECT_TRUE(has(render_report(missing), "</html>")) << pointer;
    for (const Json& other : {Json(nullptr), Json("text"), Json(1.5), Json::array({1}), Json({{"a", 1}})}) {
      Json mistyped = whole;
      mistyped[at] = other;
      EXPECT_TRUE(has(render_report(mistyped), "</html>")) << pointer << " = " << other;
    }
  }
}

TEST(Report, TheVerdictFollowsTheGate) {
  Json report = sample();
  EXPECT_TRUE(has(render_report(report), "Refused by the export gate"));
  report["export"].erase(1);
  std::string page = render_report(report);
  EXPECT_TRUE(has(page, "Passed the export gate"));
  EXPECT_TRUE(has(page, "22.2\u202F%</span>"));
  EXPECT_TRUE(has(page, "77.4\u202F%</span>"));
  report["export"][0].erase("gate");
  EXPECT_TRUE(has(render_report(report), "No file was gated"));
}

TEST(Report, SamplesAreMarkedRightOrWrong) {
  Json report = {
      {"samples", {{{"key", "k"}, {"prompt", "p"}, {"expected", "yes"}, {"base", "no"}, {"tuned", " yes\n"}}}}};
  const std::string page = render_report(report);
  EXPECT_EQ(count(page, "✓ right</dd>"), 1);
  EXPECT_EQ(count(page, "✕ wrong</dd>"), 1);
}

TEST(ServeCommands, QuoteForTheShellAndLeaveRefusedFilesOut) {
  Json report = {{"name", "My model"},
                 {"export",
                  {{{"format", "gguf"}, {"path", "export/it's; rm -rf.gguf"}, {"gate", {{"passed", true}}}},
                   {{"format", "gguf"}, {"path", "export/bad.refused.gguf"}, {"gate", {{"passed", false}}}},
                   {{"format", "gguf_adapter"}, {"path", "export/lora.gguf"}},
                   {{"format", "peft"}, {"path", "adapter"}},
                   {{"format", "safetensors"}, {"path", "export/it's-hf"}}}},
                 {"model", {{"path", "base.gguf"}, {"hub_id", "org/base"}}},
                 {"chat", {{"system", "Be short."}}},
                 {"samples", {{{"prompt", "what's\nthis?"}}}}};
  Json commands = serve_commands(report);
  std::string all;
  for (const Json& command : commands) all += command["code"].get<std::string>() + "\n";
  EXPECT_TRUE(has(all, R"(llama-server -m 'export/it'\''s; rm -rf.gguf' --port 8080)"));
  EXPECT_TRUE(has(all, R"("content":"what'\''s\nthis?")"));
  EXPECT_TRUE(has(all, "-sys 'Be short.'"));
  EXPECT_TRUE(has(all, "SYSTEM \"\"\"Be short.\"\"\""));
  EXPECT_TRUE(has(all, R"(chat = [{"role": "system", "content": "Be short."}, {"role": "user")"));
  EXPECT_TRUE(has(all, "ollama create my-model"));
  EXPECT_TRUE(has(all, "llama-server -m base.gguf --lora export/lora.gguf"));
  EXPECT_TRUE(has(all, "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), \"adapter\")"));
  EXPECT_TRUE(has(all, "pipeline(\"text-generation\", model=\"export/it's-hf\")"));
  EXPECT_TRUE(
      has(all, R"(chat([{"role": "system", "content": "Be short."}, {"role": "user", "content": "what's\nthis?"}])"));
  EXPECT_TRUE(has(all, R"(vllm serve 'export/it'\''s-hf' --port 8000)"));
  EXPECT_FALSE(has(all, "refused"));
}

TEST(Format, FiguresAreReadable) {
  EXPECT_EQ(show_count(1234567), "1,234,567");
  EXPECT_EQ(show_count(-1234), "−1,234");
  EXPECT_EQ(show_count(999), "999");
  EXPECT_EQ(show_number(0.0012345), "0.00123");
  EXPECT_EQ(show_number(12345.6), "12,346");
  EXPECT_EQ(show_percent(0.7736), "77.4\u202F%");
  EXPECT_EQ(show_bytes(105454432), "105\u202FMB");
  EXPECT_EQ(show_bytes(9790000), "9.8\u202FMB");
  EXPECT_EQ(show_bytes(12), "12\u202FB");
  EXPECT_EQ(show_seconds(0.231), "231\u202Fms");
  EXPECT_EQ(show_seconds(461.2), "7\u202Fmin 41\u202Fs");
  EXPECT_EQ(show_seconds(7500), "2\u202Fh 5\u202Fmin");
  EXPECT_EQ(show_count("no figure"), "–");
  EXPECT_EQ(script_json({{"a", "</script>&\u2028"}}), R"({"a":"\u003c/script\u003e\u0026\u2028"})");
}

}  // namespace
}  // namespace retort
