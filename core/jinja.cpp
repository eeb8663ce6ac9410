#include "core/jinja.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "jinja/caps.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"

namespace retort {
namespace {

using jinja::token;

// The engine's parser and runtime recurse; these bounds keep both far inside an 8 MiB stack.
constexpr size_t kMaxSource = 1 << 20;
constexpr int kMaxDepth = 200;

// An upper bound of the recursion that the tokens cause: open brackets, open blocks (an elif nests in its if), and
// chains of prefix operators or conditional expressions within one statement.
int nesting(const std::vector<token>& tokens) {
  static const std::set<std::string> opens = {"if", "for", "macro", "call", "filter"};
  static const std::set<std::string> closes = {"endif", "endfor", "endmacro", "endcall", "endfilter"};
  std::vector<int> blocks;
  int brackets = 0, in_blocks = 0, chain = 0, deepest = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const token& t = tokens[i];
    switch (t.t) {
      case token::open_statement:
      case token::open_expression:
        chain = 0;
        break;
      case token::open_paren:
      case token::open_square_bracket:
      case token::open_curly_bracket:
        ++brackets;
        break;
      case token::close_paren:
      case token::close_square_bracket:
      case token::close_curly_bracket:
        --brackets;
        break;
      case token::unary_operator:
      case token::additive_binary_operator:
        ++chain;
        break;
      case token::identifier:
        if (i == 0 || tokens[i - 1].t != token::open_statement) {
          chain += t.value == "if" || t.value == "not";
        } else if (opens.contains(t.value)) {
          blocks.push_back(1), ++in_blocks;
        } else if (t.value == "elif" && !blocks.empty()) {
          ++blocks.back(), ++in_blocks;
        } else if (closes.contains(t.value) && !blocks.empty()) {
          in_blocks -= blocks.back(), blocks.pop_back();
        }
        break;
      default:
        break;
    }
    deepest = std::max(deepest, brackets + in_blocks + chain);
  }
  return deepest;
}

// The engine itself runs a template for as long as it takes. Every loop and every macro therefore begins with a call
// that with_guards() puts there; it stops what takes too long or recurses too deep. Processor time, not the clock: a
// busy machine must not refuse a good template. Five seconds are ten thousand times what chat templates take.
constexpr double kMaxSeconds = 5;
constexpr int64_t kMaxRange = 100'000;  // range() makes its whole list before the loop begins
constexpr ptrdiff_t kMaxStack = 2 << 20;
constexpr const char* kGuard = "retort_guard";

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// What one call of the engine may take, whatever it renders on this thread while the object lives.
class Budget {
 public:
  Budget() : outer_(current) { current = this; }
  ~Budget() { current = outer_; }
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Throws when it is spent, also for callers that swallowed the first throw.
  static void check() {
    if (!current) return;
    if (thread_seconds() > current->deadline_)
      throw std::runtime_error(
          fmt::format("the template ran for {} s of processor time: a loop without end?", kMaxSeconds));
    if (std::abs(current->stack_ - static_cast<char*>(__builtin_frame_address(0))) > kMaxStack)
      throw std::runtime_error("macros call each other too deep: a recursion without end?");
  }

 private:
  static thread_local Budget* current;
  Budget* outer_;
  double deadline_ = thread_seconds() + kMaxSeconds;
  char* stack_ = static_cast<char*>(__builtin_frame_address(0));
};
thread_local Budget* Budget::current = nullptr;

// The tokens with a call of the guard at the beginning of each loop's and macro's body.
jinja::lexer_result with_guards(jinja::lexer_result lexed) {
  std::vector<token> guarded;
  bool opens_body = false;
  for (const token& t : lexed.tokens) {
    if (!guarded.empty() && guarded.back().t == token::open_statement)
      opens_body = t.t == token::identifier && (t.value == "for" || t.value == "macro");
    guarded.push_back(t);
    if (t.t != token::close_statement || !opens_body) continue;
    opens_body = false;
    guarded.push_back({token::open_expression, "{{", t.pos});
    guarded.push_back({token::identifier, kGuard, t.pos});
    guarded.push_back({token::open_paren, "(", t.pos});
    guarded.push_back({token::close_paren, ")", t.pos});
    guarded.push_back({token::close_expression, "}}", t.pos});
  }
  lexed.tokens = std::move(guarded);
  return lexed;
}

jinja::value short_range(const jinja::func_args& args) {
  std::vector<double> bounds;
  for (const jinja::value& bound : args.get_args())
    if (jinja::is_val<jinja::value_int>(bound)) bounds.push_back(static_cast<double>(bound->as_int()));
  if (bounds.size() == 1) bounds.insert(bounds.begin(), 0);
  // The engine's own function refuses all that is not two or three integers.
  if (bounds.size() >= 2) {
    const double step = bounds.size() > 2 ? bounds[2] : 1;
    if (step != 0 && (bounds[1] - bounds[0]) / step > kMaxRange)
      throw std::runtime_error(fmt::format("range() of more than {} numbers", kMaxRange));
  }
  return jinja::global_builtins().at("range")(args);
}

// Stands before a program's statements and gives its variables the guard, also where the engine makes them.
struct Prologue : jinja::statement {
  Prologue() { pos = 0; }
  std::string type() const override { return "Prologue"; }
  jinja::value execute_impl(jinja::context& context) const override {
    context.set_val(kGuard, jinja::mk_val<jinja::value_func>(kGuard, [](const jinja::func_args&) -> jinja::value {
                      Budget::check();
                      return jinja::mk_val<jinja::value_string>("");
                    }));
    context.set_val("range", jinja::mk_val<jinja::value_func>("range", short_range));
    return jinja::mk_val<jinja::value_undefined>();
  }
};

jinja::program parse(const jinja::lexer_result& lexed) {
  jinja::program program = jinja::parse_from_tokens(with_guards(lexed));
  program.body.insert(program.body.begin(), std::make_unique<Prologue>());
  return program;
}

// Names that the engine or the language gives a meaning to.
const std::set<std::string> kReserved = {"for",
                                         "in",
                                         "if",
                                         "else",
                                         "elif",
                                         "endif",
                                         "endfor",
                                         "set",
                                         "endset",
                                         "macro",
                                         "endmacro",
                                         "call",
                                         "and",
                                         "or",
                                         "not",
                                         "is",
                                         "true",
                                         "false",
                                         "none",
                                         "True",
                                         "False",
                                         "None",
                                         "filter",
                                         "endfilter",
                                         "loop",
                                         "break",
                                         "range",
                                         "dict",
                                         "endcall",
                                         "continue",
                                         "namespace",
                                         "generation",
                                         "endgeneration",
                                         "raise_exception",
                                         "strftime_now",
                                         "tojson",
                                         "caller",
                                         "self"};

std::set<std::string> free_variables(const std::vector<token>& tokens) {
  std::set<std::string> read, assigned;
  enum { none, in_for, in_macro } mode = none;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const token& t = tokens[i];
    if (t.t == token::close_statement) mode = none;
    if (t.t != token::identifier) continue;
    const token* before = i > 0 ? &tokens[i - 1] : nullptr;
    bool after_statement = before && before->t == token::open_statement;
    if (after_statement && t.value == "for") mode = in_for;
    if (after_statement && t.value == "macro") mode = in_macro;
    if (mode == in_for && t.value == "in") mode = none;
    if (kReserved.contains(t.value)) continue;
    bool named = before && (before->t == token::dot || before->t == token::pipe);
    bool tested = before && before->t == token::identifier &&
                  (before->value == "is" || (before->value == "not" && i > 1 && tokens[i - 2].value == "is"));
    bool set = before && before->t == token::identifier && before->value == "set";
    bool keyword_argument = i + 1 < tokens.size() && tokens[i + 1].t == token::equals;
    if (mode != none || set)
      assigned.insert(t.value);
    else if (!named && !tested && !keyword_argument)
      read.insert(t.value);
  }
  for (const std::string& name : assigned) read.erase(name);
  return read;
}

jinja::value to_value(const Json& json) {
  switch (json.type()) {
    case Json::value_t::string:
      return jinja::mk_val<jinja::value_string>(json.get_ref<const std::string&>());
    case Json::value_t::boolean:
      return jinja::mk_val<jinja::value_bool>(json.get<bool>());
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return jinja::mk_val<jinja::value_int>(json.get<int64_t>());
    case Json::value_t::number_float:
      return jinja::mk_val<jinja::value_float>(json.get<double>());
    case Json::value_t::array: {
      auto array = jinja::mk_val<jinja::value_array>();
      for (const Json& item : json) array->push_back(to_value(item));
      return array;
    }
    case Json::value_t::object: {
      auto object = jinja::mk_val<jinja::value_object>();
      for (const auto& [key, item] : json.items()) object->insert(key, to_value(item));
      return object;
    }
    default:
      return jinja::mk_val<jinja::value_none>();
  }
}

// The engine's messages show an excerpt of the source on further lines; ours are one line.
std::string one_line(std::string text) {
  if (size_t caret = text.find_last_not_of(" ^\n"); caret != std::string::npos) text.resize(caret + 1);
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

}  // namespace

struct JinjaTemplate::Program {
  std::string where, source;
  Exit exit;
  jinja::program program;
  std::set<std::string> variables;
};

JinjaTemplate::JinjaTemplate(const std::string& source, std::string where, Exit exit) {
  if (source.size() > kMaxSource)
    fail(exit, "{}: the template has {} bytes, at most {} are allowed", where, source.size(), kMaxSource);
  auto program = std::make_shared<Program>();
  program->where = std::move(where);
  program->source = source;
  program->exit = exit;
  try {
    jinja::lexer lexer;
    jinja::lexer_result tokens = lexer.tokenize(source);
    if (int depth = nesting(tokens.tokens); depth > kMaxDepth)
      fail(exit, "{}: the template nests {} deep, at most {} is allowed", program->where, depth, kMaxDepth);
    program->variables = free_variables(tokens.tokens);
    program->program = parse(tokens);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(exit, "{}: not a Jinja template: {}", program->where, one_line(error.what()));
  }
  program_ = program;
}

std::string JinjaTemplate::render(const Json& values, std::time_t now) const {
  const Budget budget;
  try {
    jinja::context context(program_->source);
    context.current_time = now;
    for (const auto& [key, value] : values.items()) context.set_val(key, to_value(value));
    jinja::runtime runtime(context);
    jinja::value results = runtime.execute(program_->program);
    return jinja::render_string_parts(jinja::runtime::gather_string_parts(results));
  } catch (const std::exception& error) {
    fail(program_->exit, "{}: {}", program_->where, one_line(error.what()));
  }
}

const std::set<std::string>& JinjaTemplate::variables() const { return program_->variables; }

JinjaTemplate::ChatAbilities JinjaTemplate::chat_abilities() const {
  const Budget budget;
  try {
    jinja::lexer lexer;
    jinja::program program = parse(lexer.tokenize(program_->source));
    jinja::caps caps = jinja::caps_get(program);
    Budget::check();  // the probes swallow errors
    return {caps.supports_system_role, caps.supports_typed_content && !caps.supports_string_content};
  } catch (const std::exception& error) {
    fail(program_->exit, "{}: {}", program_->where, one_line(error.what()));
  }
}

}  // namespace retort
