// What the page says, as texts: the template only lays it out.
#pragma once

#include "core/json.h"

namespace retort {

/// Everything that the template shows, formatted but not escaped. Parts that the report has no figures for are absent.
Json report_view(const Json& report);
/// The part of it that shows sample rows: {before, after, rows}, or null without samples.
Json samples_view(const Json& report);
/// The part that shows teachers and student: {facts, teachers}, or null for a run without a teacher.
Json distill_view(const Json& report);
/// The numbers that the page's script draws.
Json report_charts(const Json& report);

}  // namespace retort
