#include "report/report.h"

#include "core/jinja.h"
#include "report/embedded.h"
#include "report/format.h"
#include "report/view.h"

namespace retort {

std::string render_report(const Json& report) {
  static const JinjaTemplate page(report_template, "report.html.jinja", Exit::internal);
  // The engine does not escape: every text is escaped here, before the template sees it.
  Json values = escape_all(report_view(report));
  values["charts"] = script_json(report_charts(report));
  values["chart_js"] = report_chart_js;
  return page.render(values);
}

}  // namespace retort
