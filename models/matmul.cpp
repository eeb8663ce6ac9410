#include "models/matmul.h"

#include <ATen/ATen.h>

namespace retort {

void matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, bool add, double alpha) {
  at::Tensor target = out;
  target.addmm_(a, b, add ? 1 : 0, alpha);
}

}  // namespace retort
