// A distribution of numbers as counts of logarithmic buckets: DDSketch (Masson, Rim, Lee: DDSketch, 2019).
//
// A quantile is off by at most 0.5 % of its value; the share of values up to a bucket's edge is exact. Buckets are the
// same for every data set, so a sketch of a union is the sum of the sketches, to the bit, and two data sets are
// compared on one grid. It holds no value of a row: 0.5 % does not tell one row from its neighbours.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/json.h"
#include "monitor/detector.h"

namespace retort {

class QuantileSketch {
 public:
  static constexpr double kAccuracy = 0.005;

  /// Error(internal) unless x is finite, at least 0 and at most 1e15.
  void add(double x);
  void merge(const QuantileSketch& other);

  int64_t count() const { return count_; }
  /// How many are above zero, exactly.
  int64_t above_zero() const;
  /// Every value as its bucket's.
  Values values() const;
  double mean() const;
  /// For q in [0, 1], the smallest bucket with at least that share of the values up to it; 0 when empty.
  double quantile(double q) const;

  bool operator==(const QuantileSketch&) const = default;
  Json to_json() const;
  /// Error(bad_input) naming `where`.
  static QuantileSketch from_json(const Json& json, const std::string& where);

 private:
  std::map<int32_t, int64_t> buckets_;
  int64_t count_ = 0;
};

}  // namespace retort
