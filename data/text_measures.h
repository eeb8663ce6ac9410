// What the filters of web corpora measure of a text: Gopher (Rae et al., 2021, appendix A1), C4 (Raffel et al., 2020)
// and FineWeb (Penedo et al., 2024), as datatrove computes them, with words split at white space.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace retort {

/// A measure with the limit that its authors gave it.
struct TextRule {
  const char* name;  ///< begins with its family: gopher_, c4_, fineweb_
  const char* text;  ///< one line
  double limit;
  bool at_most;  ///< limit is the greatest allowed value; else the smallest
};
std::span<const TextRule> text_rules();

/// The measure of each rule, in the order of text_rules(); empty for a text without words. Lengths are in characters.
std::vector<double> text_measures(std::string_view text);

}  // namespace retort
