// Jinja templates through llama.cpp's engine, the one that renders chat templates where the exported model is served.
#pragma once

#include <ctime>
#include <memory>
#include <set>
#include <string>

#include "core/error.h"
#include "core/json.h"

namespace retort {

/// A template, parsed once. Cheap to copy; rendering is const and safe from several threads.
class JinjaTemplate {
 public:
  /// `where` names the template in messages. Throws Error(exit) on a syntax error, and on nesting deeper than the
  /// engine's recursion can take (templates come from model files too).
  explicit JinjaTemplate(const std::string& source, std::string where, Exit exit = Exit::usage);

  /// `values` is an object: its keys are the template's variables. Throws Error(exit) with the engine's message; a
  /// variable without a value renders as nothing, as in Jinja. `now` is what strftime_now prints. A template that loops
  /// or recurses without end is stopped after some seconds with the same Error.
  std::string render(const Json& values, std::time_t now = std::time(nullptr)) const;
  /// The variables that the template reads and does not set itself.
  const std::set<std::string>& variables() const;
  /// What a chat template can take, found by rendering probes as llama.cpp's server does.
  struct ChatAbilities {
    bool system_role = true;          ///< else a system message must go into the next one
    bool typed_content_only = false;  ///< content must be [{type: text, text: ...}]
  };
  ChatAbilities chat_abilities() const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace retort
