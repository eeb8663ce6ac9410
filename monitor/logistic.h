// A probability from a few features: logistic regression, and the monotone correction of its answers.
#pragma once

#include <span>
#include <vector>

namespace retort {

/// P(1 | x) = 1 / (1 + exp(-(intercept + sum of coefficient (x - mean) / scale))).
struct Logistic {
  std::vector<double> mean,
      scale;  ///< of each feature, over the rows of the fit (scale divided by n; 1 for a constant)
  std::vector<double> coefficients;
  double intercept = 0;
  double operator()(std::span<const double> x) const;
};

/// Minimises the sum of log losses + ridge / 2 |coefficients|^2 over standardised features (scikit-learn's
/// LogisticRegression(C = 1 / ridge)) by Newton's method. Rows of equal length, one after the other; labels 0 or 1.
/// Error(bad_input) for no row, numbers that are not finite, or lengths that do not fit.
Logistic fit_logistic(std::span<const double> rows, std::span<const double> labels, double ridge = 1);

/// A rising piecewise linear function; constant beyond its ends.
struct Isotonic {
  std::vector<double> x, y;
  double operator()(double value) const;
};

/// Least squares among rising functions, by pooling adjacent violators (scikit-learn's IsotonicRegression, equal x
/// averaged, out_of_bounds="clip"). Error(bad_input) for no row.
Isotonic fit_isotonic(std::span<const double> x, std::span<const double> y);

}  // namespace retort
