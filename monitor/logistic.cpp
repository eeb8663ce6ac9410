#include "monitor/logistic.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace retort {
namespace {

/// Solves a x = b for a symmetric positive definite a [n, n] (Cholesky); both are overwritten, b by x.
void solve(std::vector<double>& a, std::vector<double>& b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(std::max(sum, 1e-12)) : sum / a[j * n + j];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
}

/// log(1 + exp(z)) without overflow.
double softplus(double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); }

}  // namespace

double Logistic::operator()(std::span<const double> x) const {
  double z = intercept;
  for (size_t i = 0; i < coefficients.size(); ++i) z += coefficients[i] * (x[i] - mean[i]) / scale[i];
  return 1 / (1 + std::exp(-z));
}

Logistic fit_logistic(std::span<const double> rows, std::span<const double> labels, double ridge) {
  const size_t n = labels.size();
  if (n == 0 || rows.size() % n != 0)
    fail(Exit::bad_input, "{} numbers are no {} rows of equal length", rows.size(), n);
  const size_t d = rows.size() / n;
  for (double x : rows)
    if (!std::isfinite(x)) fail(Exit::bad_input, "a feature is {}", x);
  Logistic model{std::vector<double>(d, 0), std::vector<double>(d, 1), std::vector<double>(d, 0)};
  const double count = static_cast<double>(n);
  std::vector<double> z(rows.begin(), rows.end());  // standardised
  for (size_t j = 0; j < d; ++j) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) model.mean[j] += rows[i * d + j] / count;
    for (size_t i = 0; i < n; ++i) squares += std::pow(rows[i * d + j] - model.mean[j], 2);
    if (squares > 0) model.scale[j] = std::sqrt(squares / count);
    for (size_t i = 0; i < n; ++i) z[i * d + j] = (rows[i * d + j] - model.mean[j]) / model.scale[j];
  }
  std::vector<double> weights(d + 1, 0);  // the intercept last, without ridge
  auto linear = [&](const std::vector<double>& w, size_t i) {
    double sum = w[d];
    for (size_t j = 0; j < d; ++j) sum += w[j] * z[i * d + j];
    return sum;
  };
  // The intercept alone has no finite optimum where all labels agree: a trace of ridge keeps it finite.
  auto penalty = [&](size_t j) { return j < d ? ridge : 1e-9; };
  auto loss = [&](const std::vector<double>& w) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const double s = linear(w, i);
      sum += softplus(s) - labels[i] * s;
    }
    for (size_t j = 0; j <= d; ++j) sum += penalty(j) / 2 * w[j] * w[j];
    return sum;
  };
  double now = loss(weights);
  for (int iteration = 0; iteration < 100; ++iteration) {
    std::vector<double> hessian((d + 1) * (d + 1), 0), step(d + 1, 0);
    for (size_t i = 0; i < n; ++i) {
      const double p = 1 / (1 + std::exp(-linear(weights, i)));
      auto at = [&](size_t j) { return j < d ? z[i * d + j] : 1.0; };
      for (size_t j = 0; j <= d; ++j) {
        step[j] += (labels[i] - p) * at(j);
        for (size_t k = 0; k <= j; ++k) hessian[j * (d + 1) + k] += p * (1 - p) * at(j) * at(k);
      }
    }
    for (size_t j = 0; j <= d; ++j) {
      step[j] -= penalty(j) * weights[j];
      hessian[j * (d + 1) + j] += penalty(j);
    }
    solve(hessian, step);
    double length = 1, next = 0;
    std::vector<double> moved(d + 1);
    for (;; length /= 2) {  // Newton's step, halved until the loss does not rise
      for (size_t j = 0; j <= d; ++j) moved[j] = weights[j] + length * step[j];
      next = loss(moved);
      if (next <= now || length < 1e-9) break;
    }
    if (next > now) break;
    weights = moved;
    const double gained = now - next;
    now = next;
    if (gained < 1e-13 * (1 + now)) break;
  }
  std::copy_n(weights.begin(), d, model.coefficients.begin());
  model.intercept = weights[d];
  return model;
}

double Isotonic::operator()(double value) const {
  const auto above = static_cast<size_t>(std::lower_bound(x.begin(), x.end(), value) - x.begin());
  if (above == 0) return y.front();
  if (above == x.size()) return y.back();
  const double share = (value - x[above - 1]) / (x[above] - x[above - 1]);
  return y[above - 1] + share * (y[above] - y[above - 1]);
}

Isotonic fit_isotonic(std::span<const double> x, std::span<const double> y) {
  if (x.empty() || x.size() != y.size()) fail(Exit::bad_input, "{} and {} numbers are no pairs", x.size(), y.size());
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
  struct Block {
    double low, high, sum, weight;  // of x; of y
    double mean() const { return sum / weight; }
  };
  std::vector<Block> blocks;
  for (size_t i = 0; i < order.size();) {
    Block block{x[order[i]], x[order[i]], 0, 0};
    for (; i < order.size() && x[order[i]] == block.low; ++i) block.sum += y[order[i]], block.weight += 1;
    while (!blocks.empty() && blocks.back().mean() >= block.mean()) {
      block.low = blocks.back().low;
      block.sum += blocks.back().sum;
      block.weight += blocks.back().weight;
      blocks.pop_back();
    }
    blocks.push_back(block);
  }
  Isotonic result;
  for (const Block& block : blocks) {
    result.x.push_back(block.low);
    result.y.push_back(block.mean());
    if (block.high > block.low) result.x.push_back(block.high), result.y.push_back(block.mean());
  }
  return result;
}

}  // namespace retort
