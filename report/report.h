// report.json becomes report.html: one self-contained page, the same figures.
#pragma once

#include <string>

#include "core/json.h"

namespace retort {

/// The page. `report` is report.json (docs/report.md lists its keys); any key may be missing, its part is then left
/// out. Every text of the report is escaped. The page loads nothing: styles, charts and data are inside.
std::string render_report(const Json& report);

/// How to serve each exported file, as the page shows it: [{"file", "title", "text", "code"}]. Paths are relative to
/// the run's folder. Files that the gate refused are left out.
Json serve_commands(const Json& report);

}  // namespace retort
