#include "models/matmul.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>

// ATen's own call into oneDNN; no installed header declares it. Weak: without it in LibTorch, BLAS does everything.
namespace at::native {
[[gnu::weak]] void mkldnn_matmul(const Tensor& a, const Tensor& b, const Tensor& out, float beta, float alpha);
}

namespace retort {
namespace {

/// MKL takes its AVX-512 kernels on Intel's processors only; elsewhere oneDNN, which asks for the instructions and not
/// for the maker, is more than twice as fast (docs/performance.md).
bool prefers_onednn() {
#ifdef __x86_64__
  static const bool prefers = at::native::mkldnn_matmul != nullptr && at::globalContext().hasMKLDNN() &&
                              at::get_cpu_capability() == "AVX512" && !__builtin_cpu_is("intel");
  return prefers;
#else
  return false;
#endif
}

/// Below this many multiplications, oneDNN's preparations cost more than its kernels save.
constexpr int64_t onednn_pays = 128 * 128 * 128;

}  // namespace

void matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, bool add, double alpha) {
  if (a.is_cpu() && a.scalar_type() == at::kFloat && a.numel() * b.size(1) >= onednn_pays && prefers_onednn()) {
    at::native::mkldnn_matmul(a, b, out, add ? 1 : 0, static_cast<float>(alpha));
  } else {
    at::Tensor target = out;
    target.addmm_(a, b, add ? 1 : 0, alpha);
  }
}

}  // namespace retort
