// Files that the build puts into the program.
#pragma once

namespace retort {

extern const char* const report_template;  ///< report/report.html.jinja
extern const char* const report_chart_js;  ///< Chart.js, minified

}  // namespace retort
