#include "core/jinja.h"

#include <chrono>

#include "tests/core/support.h"

namespace retort {
namespace {

void expect_refused(const std::string& source, const std::string& part) {
  expect_error(Exit::bad_input, {"the template", part},
               [&] { JinjaTemplate(source, "the template", Exit::bad_input).render(Json::object()); });
}

TEST(Jinja, LoopsAndMacrosRenderAsInJinja) {
  const auto render = [](const std::string& source) {
    return JinjaTemplate(source, "t").render({{"rows", {{{"a", 1}}, {{"a", 2}}}}});
  };
  EXPECT_EQ(render("{% for r in rows %}{{ r.a }},{% endfor %}"), "1,2,");
  EXPECT_EQ(render("a\n  {%- for i in range(1, 7, 2) -%}\n  {{ i }}\n{%- endfor -%}\n b"), "a135b");
  EXPECT_EQ(render("{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}").size(),
            71U);
  EXPECT_EQ(render("{% set t %}{% for i in range(2) %}{{ loop.index }}{% endfor %}{% endset %}[{{ t }}]"), "[12]");
  EXPECT_EQ(JinjaTemplate("{% for r in rows %}{{ r }}{% endfor %}", "t").variables(), std::set<std::string>{"rows"});
}

TEST(Jinja, ATemplateWithoutEndIsRefused) {
  const auto start = std::chrono::steady_clock::now();
  expect_refused("{% for i in range(1000000000) %}{% endfor %}", "range() of more than 100000 numbers");
  expect_refused("{{ range(0, -1000000000, -2) | length }}", "range() of more than");
  expect_refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "macros call each other too deep");
  expect_refused("{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  // 10^12 turns; also where the engine probes what a chat template can do and swallows its errors.
  const std::string loops = [] {
    std::string open, close;
    for (const char* name : {"a", "b", "c", "d"}) {
      open += std::string("{% for ") + name + " in range(1000) %}";
      close += "{% endfor %}";
    }
    return open + close;
  }();
  expect_refused(loops, "5 s of processor time");
  const JinjaTemplate chat(loops, "the template", Exit::bad_input);
  expect_error(Exit::bad_input, {"5 s of processor time"}, [&] { chat.chat_abilities(); });
}

}  // namespace
}  // namespace retort
