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

/// oneDNN compiles and keeps a kernel for every shape it meets, and the number of tokens differs from batch to batch:
/// left alone, memory grows by 20 MB a step. Sizes that follow the tokens are therefore cut to whole tiles, and the
/// rest, less than one tile, goes to BLAS.
constexpr int64_t tile = 64;
int64_t whole_tiles(int64_t size) { return size > tile ? size - size % tile : size; }

/// Columns are not cut (results must lie close together): those of a model are whole tiles, small ranks or a
/// vocabulary; what remains are attention's scores, as many as a document has tokens.
bool columns_repeat(int64_t columns) { return columns <= tile || columns % tile == 0 || columns > 4096; }

void blas(const at::Tensor& a, const at::Tensor& b, at::Tensor out, bool add, double alpha) {
  out.addmm_(a, b, add ? 1 : 0, alpha);
}

}  // namespace

void matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, bool add, double alpha) {
  if (!a.is_cpu() || a.scalar_type() != at::kFloat || a.numel() * b.size(1) < onednn_pays ||
      !columns_repeat(b.size(1)) || !prefers_onednn())
    return blas(a, b, out, add, alpha);
  const int64_t rows = a.size(0), inner = a.size(1), m = whole_tiles(rows), k = whole_tiles(inner);
  at::native::mkldnn_matmul(a.slice(0, 0, m).slice(1, 0, k), b.slice(0, 0, k), out.slice(0, 0, m), add ? 1 : 0,
                            static_cast<float>(alpha));
  if (k < inner) blas(a.slice(0, 0, m).slice(1, k), b.slice(0, k), out.slice(0, 0, m), true, alpha);
  if (m < rows) blas(a.slice(0, m), b, out.slice(0, m), add, alpha);
}

}  // namespace retort
