// Gauges as OpenMetrics text, which Prometheus' node_exporter reads from its textfile folder.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retort {

class OpenMetrics {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  /// Begins a family; its samples follow. Error(internal) for a name that the format does not allow or that was there.
  void gauge(std::string_view name, std::string_view help);
  /// Of the last family. Not a number and infinity are written as NaN and ±Inf.
  void sample(const Labels& labels, double value);
  /// The whole exposition with its # EOF.
  std::string text() const { return text_ + "# EOF\n"; }

 private:
  std::string text_, family_;
  std::vector<std::string> families_;
};

}  // namespace retort
