#include "monitor/quantile_sketch.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

constexpr double kLargest = 1e15, kSmallest = 1e-9;
/// Values below kSmallest are zero, and zero has a bucket of its own.
constexpr int32_t kZero = -100000;

const double kLogGamma = std::log((1 + QuantileSketch::kAccuracy) / (1 - QuantileSketch::kAccuracy));

int32_t bucket_of(double x) {
  if (!(x >= 0 && x <= kLargest)) fail(Exit::internal, "a signal is {}, a number from 0 to {} is needed", x, kLargest);
  return x < kSmallest ? kZero : static_cast<int32_t>(std::ceil(std::log(x) / kLogGamma));
}

/// Bucket i holds (γ^(i-1), γ^i]; its value is off by the same share at both ends.
double value_of(int32_t bucket) {
  return bucket == kZero ? 0 : 2 * std::exp(bucket * kLogGamma) / (std::exp(kLogGamma) + 1);
}

}  // namespace

void QuantileSketch::add(double x) {
  ++buckets_[bucket_of(x)];
  ++count_;
}

void QuantileSketch::merge(const QuantileSketch& other) {
  for (const auto& [bucket, count] : other.buckets_) buckets_[bucket] += count;
  count_ += other.count_;
}

Values QuantileSketch::values() const {
  Values values;
  for (const auto& [bucket, count] : buckets_) {
    values.distinct.push_back(value_of(bucket));
    values.counts.push_back(count);
  }
  values.total = count_;
  return values;
}

double QuantileSketch::mean() const {
  double sum = 0;
  for (const auto& [bucket, count] : buckets_) sum += value_of(bucket) * static_cast<double>(count);
  return count_ ? sum / static_cast<double>(count_) : 0;
}

int64_t QuantileSketch::above_zero() const {
  const auto zeros = buckets_.find(kZero);
  return count_ - (zeros == buckets_.end() ? 0 : zeros->second);
}

double QuantileSketch::quantile(double q) const {
  int64_t before = 0;
  for (const auto& [bucket, count] : buckets_) {
    before += count;
    if (static_cast<double>(before) >= q * static_cast<double>(count_)) return value_of(bucket);
  }
  return 0;
}

Json QuantileSketch::to_json() const {
  Json buckets = Json::array();
  for (const auto& [bucket, count] : buckets_) buckets.push_back({bucket, count});
  return {{"count", count_}, {"buckets", buckets}};
}

QuantileSketch QuantileSketch::from_json(const Json& json, const std::string& where) {
  QuantileSketch sketch;
  const Json buckets = json_get<Json>(json, "buckets", where);
  if (!buckets.is_array()) fail(Exit::bad_input, "{}: buckets is {}, a list is needed", where, buckets.type_name());
  for (const Json& entry : buckets) {
    if (!entry.is_array() || entry.size() != 2 || !json_holds<int32_t>(entry[0]) || !json_holds<int64_t>(entry[1]))
      fail(Exit::bad_input, "{}: a bucket is {}, [number, count] is needed", where, entry.dump().substr(0, 60));
    const auto bucket = entry[0].get<int32_t>();
    const auto count = entry[1].get<int64_t>();
    const bool known = bucket == kZero || (bucket >= bucket_of(kSmallest) && bucket <= bucket_of(kLargest));
    if (!known || count < 1 || count > (int64_t{1} << 40) || sketch.buckets_.contains(bucket))
      fail(Exit::bad_input, "{}: the bucket {} does not belong to a sketch", where, entry.dump());
    sketch.buckets_[bucket] = count;
    sketch.count_ += count;
  }
  if (sketch.count_ != json_get<int64_t>(json, "count", where))
    fail(Exit::bad_input, "{}: the buckets hold {} values, count says {}", where, sketch.count_, json["count"].dump());
  return sketch;
}

}  // namespace retort
