#include "monitor/detector.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace retort {

#define KIND(name) extern const DetectorKind detector_##name;
#include "detector_kinds.inc"
#undef KIND

const std::map<std::string, const DetectorKind*>& detector_kinds() {
  static const std::map<std::string, const DetectorKind*> kinds = {
#define KIND(name) {#name, &detector_##name},
#include "detector_kinds.inc"
#undef KIND
  };
  return kinds;
}

const DetectorKind& detector_kind(const std::string& name) {
  const auto kind = detector_kinds().find(name);
  if (kind != detector_kinds().end()) return *kind->second;
  std::vector<std::string> names;
  for (const auto& [known, unused] : detector_kinds()) names.push_back(known);
  fail(Exit::usage, "detector: {}", not_among(name, names));
}

const Schema<DetectorOptions>& schema_of(DetectorOptions*) {
  static const auto schema = [] {
    std::vector<std::string> kinds;
    for (const auto& [name, kind] : detector_kinds()) kinds.push_back(name);
    Check above_zero;
    above_zero.minimum = 0;
    above_zero.minimum_open = true;
    return Schema<DetectorOptions>("detectors", "A statistic that compares a signal with the baseline's.")
        .field("kind", &DetectorOptions::kind, "the detector", {.one_of = kinds, .required = true})
        .field("profile", &DetectorOptions::profile,
               "whose bins and rules: `retort`, or a peer's (evidently, frouros, nannyml, deciles) to compare with it")
        .field("limit", &DetectorOptions::limit, "an effect above this matters; the detector's own when null",
               {.minimum = 0})
        .field("permutations", &DetectorOptions::permutations, "most resamples of a test; p >= 1 / (permutations + 1)",
               {.minimum = 19, .maximum = 100000})
        .field("seed", &DetectorOptions::seed, "of permutations and folds")
        .field("gamma", &DetectorOptions::gamma, "of the kernel exp(-gamma d^2); median heuristic when null",
               above_zero)
        .rule([](const DetectorOptions& options, const Yaml& node) {
          const auto& profiles = detector_kind(options.kind).profiles;
          if (std::find(profiles.begin(), profiles.end(), options.profile) == profiles.end())
            node.refuse(fmt::format("profile of {}: {}", options.kind, not_among(options.profile, profiles)));
        });
  }();
  return schema;
}

static void require_finite(std::span<const double> numbers) {
  constexpr double kLargest = 1e100;  // sums of squares and of cubes stay finite
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (!(std::abs(numbers[i]) <= kLargest)) {
      fail(Exit::bad_input, "drift: number {} of the sample is {}; leave out rows without a finite value up to {:.0e}",
           i, numbers[i], kLargest);
    }
  }
}

/// Adds `count` rows to `total`. A double holds every number of rows that is let through.
static void add_rows(int64_t& total, int64_t count) {
  constexpr int64_t kMostRows = int64_t{1} << 52;  // of each sample
  if (count > kMostRows - total)
    fail(Exit::bad_input, "drift: the counts of a sample add up to more than 2^52 rows (the last: {})", count);
  total += count;
}

Values values_of(std::span<const double> sample) {
  const std::vector<int64_t> ones(sample.size(), 1);
  return values_of(sample, ones);
}

Values values_of(std::span<const double> values, std::span<const int64_t> counts) {
  if (values.size() != counts.size())
    fail(Exit::bad_input, "drift: {} values with {} counts", values.size(), counts.size());
  require_finite(values);
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  Values sample;
  for (size_t i : order) {
    if (counts[i] < 1) fail(Exit::bad_input, "drift: value {} has count {}; a count is at least 1", i, counts[i]);
    add_rows(sample.total, counts[i]);
    if (sample.distinct.empty() || sample.distinct.back() != values[i]) {
      sample.distinct.push_back(values[i]);
      sample.counts.push_back(0);
    }
    sample.counts.back() += counts[i];
  }
  return sample;
}

/// The kind, whose function for this form of sample is `function`.
template <typename Function>
static const DetectorKind& kind_for(const DetectorOptions& options, Function DetectorKind::*function,
                                    const char* form) {
  const DetectorKind& kind = detector_kind(options.kind);
  if (kind.*function == nullptr) fail(Exit::usage, "detector {} does not take {}", options.kind, form);
  if (std::find(kind.profiles.begin(), kind.profiles.end(), options.profile) == kind.profiles.end())
    fail(Exit::usage, "profile of detector {}: {}", options.kind, not_among(options.profile, kind.profiles));
  return kind;
}

static void require_rows(const DetectorOptions& options, int64_t reference, int64_t current) {
  if (reference > 0 && current > 0) return;
  fail(Exit::bad_input, "detector {}: {} rows in the baseline and {} in the current sample; both need at least one",
       options.kind, reference, current);
}

static Detection finish(Detection detection, const DetectorKind& kind, const DetectorOptions& options) {
  detection.name = options.profile == "retort" ? options.kind : options.kind + "." + options.profile;
  if (options.limit)
    detection.limit = *options.limit;
  else if (options.profile == "retort")
    detection.limit = kind.limit;
  if (!options.p_value) detection.p_value = NAN;
  return detection;
}

Detection compare(const Values& reference, const Values& current, const DetectorOptions& options) {
  const DetectorKind& kind = kind_for(options, &DetectorKind::of_values, "values");
  require_rows(options, reference.total, current.total);
  return finish(kind.of_values(reference, current, options), kind, options);
}

Detection compare(std::span<const int64_t> reference, std::span<const int64_t> current,
                  const DetectorOptions& options) {
  const DetectorKind& kind = kind_for(options, &DetectorKind::of_counts, "counts");
  if (reference.size() != current.size()) {
    fail(Exit::bad_input, "detector {}: counts of {} categories in the baseline, of {} in the current sample",
         options.kind, reference.size(), current.size());
  }
  int64_t totals[2] = {0, 0};
  for (const auto* counts : {&reference, &current}) {
    for (int64_t count : *counts) {
      if (count < 0) fail(Exit::bad_input, "detector {}: a count of {}; counts are not negative", options.kind, count);
      add_rows(totals[counts == &current], count);
    }
  }
  require_rows(options, totals[0], totals[1]);
  return finish(kind.of_counts(reference, current, options), kind, options);
}

Detection compare(const Vectors& reference, const Vectors& current, const DetectorOptions& options) {
  const DetectorKind& kind = kind_for(options, &DetectorKind::of_vectors, "vectors");
  if (reference.dimensions != current.dimensions || reference.dimensions == 0 ||
      reference.numbers.size() % reference.dimensions != 0 || current.numbers.size() % current.dimensions != 0) {
    fail(Exit::bad_input,
         "detector {}: {} numbers in rows of {} in the baseline, {} in rows of {} in the current sample; the rows must "
         "be whole and of one length",
         options.kind, reference.numbers.size(), reference.dimensions, current.numbers.size(), current.dimensions);
  }
  require_rows(options, std::ssize(reference.numbers), std::ssize(current.numbers));
  require_finite(reference.numbers);
  require_finite(current.numbers);
  return finish(kind.of_vectors(reference, current, options), kind, options);
}

Detection compare(const FeatureMean& reference, const FeatureMean& current, const DetectorOptions& options) {
  const DetectorKind& kind = kind_for(options, &DetectorKind::of_means, "means of random features");
  require_rows(options, reference.rows, current.rows);
  return finish(kind.of_means(reference, current, options), kind, options);
}

}  // namespace retort
