// Jinja templates through llama.cpp's engine, the one that renders chat templates where the exported model is served.
#pragma once

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
  /// variable without a value renders as nothing, as in Jinja.
  std::string render(const Json& values) const;
  /// The variables that the template reads and does not set itself.
  const std::set<std::string>& variables() const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace retort
