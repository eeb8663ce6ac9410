// Who is told of a verdict: a program with the verdict on its stdin, and a URL that gets it by POST.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/retrain_options.h"

namespace retort {

/// Tells everyone; what failed is returned, for people, and changes nothing else: a verdict stands whoever heard it.
/// The program has ten minutes. `verdict` is a JSON file.
std::vector<std::string> notify(const NotifyOptions& options, const std::filesystem::path& verdict);

}  // namespace retort
