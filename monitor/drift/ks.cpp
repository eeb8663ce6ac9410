// Two-sample Kolmogorov-Smirnov test: the largest distance of the two distribution functions.
//
// p as scipy's ks_2samp(method="auto"): exact up to 10,000 rows a sample, else the one-sample law at n m / (n + m).
// With ties both are conservative.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

/// P(D_n,n >= h / n), by reflection: 2 sum (-1)^k+1 C(2n, n - kh) / C(2n, n), nested so that nothing cancels.
static double exact_equal(int64_t n, int64_t h) {
  double p = 0;
  for (int64_t k = n / h; k >= 0; --k) {
    double ratio = 1;
    for (int64_t j = 0; j < h; ++j)
      ratio *= static_cast<double>(n - k * h - j) / static_cast<double>(n + k * h + j + 1);
    p = ratio * (1 - p);
  }
  return 2 * p;
}

/// P(D_n,m >= h / lcm(n, m)): the share of lattice paths to (n, m) that leave the band |x m/g - y n/g| < h, by the
/// probability that a random path to (x, y) has left it (its last step came from (x - 1, y) with probability
/// x / (x + y)). O(n m) at worst, and only cells within the band are visited.
static double exact_unequal(int64_t n, int64_t m, int64_t h) {
  if (n < m) std::swap(n, m);
  const int64_t g = std::gcd(n, m), n_g = n / g, m_g = m / g;
  std::vector<double> left(static_cast<size_t>(m) + 1, 1.0);  // of the column before; 1 outside the band
  for (int64_t x = 0; x <= n; ++x) {
    const int64_t centre = x * m_g;  // inside: |centre - y n_g| < h
    const int64_t first = centre < h ? 0 : (centre - h) / n_g + 1;
    const int64_t last = std::min(m, (centre + h - 1) / n_g);
    if (first > 0 && first <= m + 1) left[static_cast<size_t>(first - 1)] = 1;
    for (int64_t y = first; y <= last; ++y) {
      const double from_left = x > 0 ? left[static_cast<size_t>(y)] : 0;
      const double from_below = y > 0 ? left[static_cast<size_t>(y - 1)] : 0;
      const auto steps = static_cast<double>(x + y);
      left[static_cast<size_t>(y)] =
          x + y == 0 ? 0 : (static_cast<double>(x) * from_left + static_cast<double>(y) * from_below) / steps;
    }
  }
  return left[static_cast<size_t>(m)];
}

/// P(D_n^+ >= d) of one sample: d sum_j C(n, j) (d + j/n)^(j-1) (1 - d - j/n)^(n-j).
static double one_sided_tail(int64_t n, double d) {
  const auto size = static_cast<double>(n);
  double sum = 0;
  for (int64_t j = 0; static_cast<double>(j) <= size * (1 - d); ++j) {
    const double at = static_cast<double>(j), x = d + at / size, rest = 1 - x;
    if (rest <= 0) break;
    sum += std::exp(std::lgamma(size + 1) - std::lgamma(at + 1) - std::lgamma(size - at + 1) + (at - 1) * std::log(x) +
                    (size - at) * std::log(rest));
  }
  return std::min(1.0, d * sum);
}

/// P(D_n < d) by Durbin's matrix (Marsaglia, Tsang, Wang 2003), for n d of a few tens.
static double durbin_cdf(int64_t n, double d) {
  const double nd = static_cast<double>(n) * d;
  const auto k = static_cast<size_t>(std::ceil(nd));
  const double h = static_cast<double>(k) - nd;
  const size_t size = 2 * k - 1;
  using Matrix = std::vector<double>;
  Matrix base(size * size);
  for (size_t i = 0; i < size; ++i)
    for (size_t j = 0; j <= std::min(i + 1, size - 1); ++j) base[i * size + j] = 1;
  for (size_t i = 0; i < size; ++i) {
    base[i * size] -= std::pow(h, static_cast<double>(i + 1));
    base[(size - 1) * size + i] -= std::pow(h, static_cast<double>(size - i));
  }
  if (2 * h > 1) base[(size - 1) * size] += std::pow(2 * h - 1, static_cast<double>(size));
  for (size_t i = 0; i < size; ++i)
    for (size_t j = 0; j <= std::min(i + 1, size - 1); ++j)
      base[i * size + j] /= std::tgamma(static_cast<double>(i + 2 - j));
  const auto product = [&](const Matrix& a, const Matrix& b) {
    Matrix c(size * size);
    for (size_t i = 0; i < size; ++i)
      for (size_t l = 0; l < size; ++l)
        for (size_t j = 0; j < size; ++j) c[i * size + j] += a[i * size + l] * b[l * size + j];
    return c;
  };
  // n! / n^n goes into the powers as they are taken, a factor e^-1 a row at a time, so that nothing overflows.
  for (double& value : base) value /= std::numbers::e;
  Matrix power(size * size);
  for (size_t i = 0; i < size; ++i) power[i * size + i] = 1;
  for (int64_t exponent = n; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1) power = product(power, base);
    base = product(base, base);
  }
  const auto rows = static_cast<double>(n);
  return power[(k - 1) * size + k - 1] * std::exp(std::lgamma(rows + 1) - rows * std::log(rows) + rows);
}

/// P(D_n < d) to order n^-3/2 (Pelz and Good 1976, as Simard and L'Ecuyer 2011 write it).
static double pelz_good_cdf(int64_t n, double d) {
  constexpr double kPi2 = std::numbers::pi * std::numbers::pi;
  const double root = std::sqrt(static_cast<double>(n)), z = d * root, z2 = z * z, z4 = z2 * z2, z6 = z4 * z2;
  double k0 = 0, k1 = 0, k2 = 0, k3 = 0;
  for (int i = 0; i <= 40; ++i) {
    const double h = i + 0.5, a = kPi2 * h * h, weight = std::exp(-a / (2 * z2));
    k0 += weight;
    k1 += (a - z2) * weight;
    k2 += (6 * z6 + 2 * z4 + a * (2 * z4 - 5 * z2) + a * a * (1 - 2 * z2)) * weight;
    k3 += (-30 * z6 - 90 * z6 * z2 + a * (135 * z4 - 96 * z6) + a * a * (212 * z4 - 60 * z2) +
           a * a * a * (5 - 30 * z2)) *
          weight;
  }
  double k2_more = 0, k3_more = 0;
  for (int i = 1; i <= 40; ++i) {
    const double a = kPi2 * i * i, weight = std::exp(-a / (2 * z2));
    k2_more += a * weight;
    k3_more += (3 * a * z2 - a * a) * weight;
  }
  const double c = std::sqrt(2 * std::numbers::pi);
  // The first sums run over all half-integers, twice those above 0.
  return c / z * k0 + c / (6 * z4) * k1 / root +
         (c / (72 * z6 * z) * k2 - c / (36 * z2 * z) * k2_more) / (root * root) +
         (c / (6480 * z6 * z4) * k3 + c / (216 * z6) * k3_more) / (root * root * root);
}

/// P(D_n >= d) of one sample against its distribution.
static double one_sample_tail(int64_t n, double d) {
  const double nd = static_cast<double>(n) * d;
  if (nd <= 0.5) return 1;
  if (d >= 1) return 0;
  // Both one-sided events together are rarer than 1e-7 here (Miller 1956).
  if (nd * d >= 2.2) return n <= 100000 ? std::min(1.0, 2 * one_sided_tail(n, d)) : 2 * std::exp(-2 * nd * d);
  const double cdf = n <= 140 ? durbin_cdf(n, d) : pelz_good_cdf(n, d);
  return std::clamp(1 - cdf, 0.0, 1.0);
}

static double ks_p_value(double d, int64_t n, int64_t m) {
  if (std::max(n, m) <= 10000) {
    const int64_t lcm = std::lcm(n, m);
    const int64_t h = std::llround(d * static_cast<double>(lcm));
    if (h == 0) return 1;
    return std::min(1.0, n == m ? exact_equal(n, h) : exact_unequal(n, m, h));
  }
  const double rows =
      static_cast<double>(n) * static_cast<double>(m) / (static_cast<double>(n) + static_cast<double>(m));
  return one_sample_tail(std::llround(rows), d);
}

static Detection of_values(const Values& reference, const Values& current, const DetectorOptions& options) {
  const Pooled pooled = pool(reference, current);
  Detection detection;
  double p = 0, q = 0;
  for (size_t i = 0; i < pooled.distinct.size(); ++i) {
    p += static_cast<double>(pooled.reference[i]);
    q += static_cast<double>(pooled.current[i]);
    const double difference = p / static_cast<double>(reference.total) - q / static_cast<double>(current.total);
    detection.statistic = std::max(detection.statistic, std::abs(difference));
  }
  detection.effect = detection.statistic;
  if (options.p_value) {
    constexpr double kSmallest = 1e-300;  // a p-value is never 0
    detection.p_value = std::max(kSmallest, ks_p_value(detection.statistic, reference.total, current.total));
  }
  return detection;
}

extern const DetectorKind detector_ks;
const DetectorKind detector_ks{.summary = "Kolmogorov-Smirnov: the largest distance of the distribution functions",
                               .effect = "that distance; a normal's shift by d deviations gives about 0.4 d",
                               .limit = 0.08,
                               .order = 0.5,
                               .of_values = of_values};

}  // namespace retort
