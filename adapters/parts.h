// What several kinds of adapters are made of.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "adapters/attach.h"

namespace retort {

/// A generator whose whole sequence follows from `key`.
at::Generator generator_of(const std::string& key, at::Device device);

/// Drops a share of a layer's inputs in training. What is dropped is a function of (seed, layer, micro-batch), so that
/// backward draws the same mask again instead of keeping it.
class Dropout {
 public:
  Dropout(const AdapterPlace& place, double share)
      : name_(place.linear.name), share_(share), seed_(place.seed), device_(place.device) {}

  void set_micro_step(uint64_t micro_step) { micro_step_ = micro_step; }
  /// Says whether this forward, and the backward that belongs to it, drop at all.
  bool begin(bool training) { return dropping_ = training && share_ > 0; }
  bool dropping() const { return dropping_; }
  /// 0 where an element is dropped, 1 / (1 - share) elsewhere; shape and type of x.
  at::Tensor mask(const at::Tensor& x) const;
  /// x, or x * mask(x) when dropping.
  at::Tensor operator()(const at::Tensor& x) const { return dropping_ ? x * mask(x) : x; }

 private:
  std::string name_;
  double share_;
  uint64_t seed_, micro_step_ = 0;
  at::Device device_;
  bool dropping_ = false;
};

/// parameter.grad, made first where there is none.
at::Tensor& gradient_of(at::Tensor& parameter);
/// parameter.grad += factor * leftᵀ right, into the buffer that the first step made.
void accumulate_product(at::Tensor& parameter, const at::Tensor& left, const at::Tensor& right, double factor = 1);
/// parameter.grad += gradient, reshaped.
void accumulate(at::Tensor& parameter, const at::Tensor& gradient);

}  // namespace retort
