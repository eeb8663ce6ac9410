// Separable losses on the CPU, a row at a time while it is in the cache.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "models/simd.h"
#include "trainer/divergence_chunk.h"

namespace retort {
namespace {

constexpr int64_t kCells = 256;  // what a byte can name

/// What does not change from row to row.
template <typename T>
struct Rows {
  CellSums (*cells)(const T* log_p, const T* log_q, int64_t n, const LossCoefficients& k, T* slope);
  LossCoefficients coefficients;
  bool interpolates;
  double t, temperature, kd_weight, ce_weight;
  int64_t vocab, named = 0, cell_count = 0;
  const uint8_t* cell_of = nullptr;
};

/// A thread's memory: at most a few numbers a token of the vocabulary.
template <typename T>
struct Scratch {
  std::vector<T> row, log_p, log_q, slope;
};

/// NaN stays.
template <typename T>
RETORT_INLINE T not_below(T x, T lowest) {
  return x < lowest ? lowest : x;
}
template <typename T>
RETORT_INLINE T log_probability(double probability) {
  return not_below(static_cast<T>(std::log(probability)), static_cast<T>(lowest_log_probability));
}

/// log p becomes that of the target between the two.
template <typename T>
RETORT_INLINE void interpolate(T* log_p, const T* log_q, int64_t n, double at) {
  const T t = static_cast<T>(at), lowest = static_cast<T>(lowest_log_probability);
  for (int64_t i = 0; i < n; ++i) log_p[i] = (1 - t) * log_q[i] + t * log_p[i];
  const T top = simd_max(log_p, n);
  T lane[simd_lanes] = {};
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) lane[l] += simd_exp(log_p[i + l] - top);
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(simd_exp(log_p[i] - top));
  for (const T value : lane) sum += static_cast<double>(value);
  const T log_sum = top + static_cast<T>(std::log(sum));
  for (i = 0; i < n; ++i) log_p[i] = not_below(log_p[i] - log_sum, lowest);
}

/// scaled = (x - shift) * scale.
template <typename T>
RETORT_INLINE void shift_and_scale(const T* x, int64_t n, T shift, T scale, T* __restrict scaled) {
  for (int64_t i = 0; i < n; ++i) scaled[i] = (x[i] - shift) * scale;
}

/// mass[c] = the sum of x over the tokens of cell c. Neighbours go to eight tables, because an addition to a number in
/// memory has to wait for the one before.
template <typename T>
RETORT_INLINE void add_cells(const T* x, const uint8_t* cell_of, int64_t n, int64_t cells, double* mass) {
  constexpr int64_t kTables = 8;
  T table[kTables][kCells];
  for (int64_t b = 0; b < kTables; ++b) std::fill_n(table[b], cells, T(0));
  int64_t i = 0;
  for (; i + kTables <= n; i += kTables)
    for (int64_t b = 0; b < kTables; ++b) table[b][cell_of[i + b]] += x[i + b];
  for (; i < n; ++i) table[0][cell_of[i]] += x[i];
  for (int64_t c = 0; c < cells; ++c) {
    mass[c] = 0;
    for (int64_t b = 0; b < kTables; ++b) mass[c] += static_cast<double>(table[b][c]);
  }
}

/// One row against some named tokens and cells; z becomes the gradient.
template <typename T>
RETORT_INLINE void partition_row(const Rows<T>& rows, T* z, int64_t label, const int32_t* ids, const float* log_named,
                                 const float* log_mass, Scratch<T>& scratch, double* measured) {
  const int64_t vocab = rows.vocab, named = rows.named, cells = rows.cell_count;
  const bool tempered = rows.temperature != 1;
  T *log_p = scratch.log_p.data(), *log_q = scratch.log_q.data(), *slope = scratch.slope.data();
  const T lowest = static_cast<T>(lowest_log_probability), top = simd_max(z, vocab);
  int64_t likely = -1;
  for (int64_t i = 0; i < named; ++i)
    if (ids[i] >= 0 && (likely < 0 || log_named[i] > log_named[likely])) likely = i;
  measured[kAgrees] = likely >= 0 && z[ids[likely]] >= top;

  // exp(z) and exp(z / T), of which the second is the first at temperature 1; neither is divided by its sum.
  const double label_logit = static_cast<double>(z[label] - top);
  T* const e = tempered ? scratch.row.data() : z;
  double soft_sum = 0;
  if (tempered) {
    shift_and_scale(z, vocab, top, static_cast<T>(1 / rows.temperature), e);
    soft_sum = simd_exp_sum(e, vocab, T(0));
  }
  const double sum = simd_exp_sum(z, vocab, top);
  if (!tempered) soft_sum = sum;
  measured[kCrossEntropy] = std::log(sum) - label_logit;

  // The student's masses: named tokens leave their cells.
  T* const named_e = scratch.row.data() + vocab;
  T* const named_z = named_e + named;
  for (int64_t i = 0; i < named; ++i) {
    const bool used = ids[i] >= 0;
    named_e[i] = used ? e[ids[i]] : T(0);
    named_z[i] = used ? z[ids[i]] : T(0);
    log_p[i] = used ? not_below(static_cast<T>(log_named[i]), lowest) : lowest;
    log_q[i] = log_probability<T>(static_cast<double>(named_e[i]) / soft_sum);
  }
  for (int64_t i = 0; i < named; ++i)
    if (ids[i] >= 0) e[ids[i]] = 0;
  double mass[kCells];
  add_cells(e, rows.cell_of, vocab, cells, mass);
  double tail = 0;
  for (int64_t c = 0; c < cells; ++c) {
    log_p[named + c] = not_below(static_cast<T>(log_mass[c]), lowest);
    log_q[named + c] = log_probability<T>(mass[c] / soft_sum);
    tail += std::exp(static_cast<double>(log_mass[c]));
  }
  measured[kTailMass] = tail;

  if (rows.interpolates) interpolate(log_p, log_q, named + cells, rows.t);
  const CellSums head = rows.cells(log_p, log_q, named, rows.coefficients, slope);
  const CellSums rest = rows.cells(log_p + named, log_q + named, cells, rows.coefficients, slope + named);
  measured[kDivergence] = head.value + rest.value;
  measured[kTailDivergence] = rest.value;

  // kd_weight T²/T (slope / Q - sum of slopes) q + ce_weight p(label), with q = e / soft_sum and Q = mass / soft_sum.
  const double kd = rows.kd_weight * rows.temperature, all = (head.slope + rest.slope) / soft_sum;
  const auto factor = [&](T cell_slope, double cell_mass) {
    return static_cast<T>(cell_mass == 0 ? 0 : kd * (static_cast<double>(cell_slope) / cell_mass - all));
  };
  T factors[kCells];
  for (int64_t c = 0; c < cells; ++c) factors[c] = factor(slope[named + c], mass[c]);
  const T ce = static_cast<T>(rows.ce_weight / sum);
  const uint8_t* cell_of = rows.cell_of;
  if (tempered)
    for (int64_t j = 0; j < vocab; ++j) z[j] = e[j] * factors[cell_of[j]] + z[j] * ce;
  else
    for (int64_t j = 0; j < vocab; ++j) z[j] *= factors[cell_of[j]] + ce;
  for (int64_t i = 0; i < named; ++i)
    if (ids[i] >= 0) z[ids[i]] = named_e[i] * factor(slope[i], static_cast<double>(named_e[i])) + named_z[i] * ce;
  z[label] -= static_cast<T>(rows.ce_weight);
}

/// One row against the teacher's logits; z becomes the gradient.
template <typename T>
RETORT_INLINE void dense_row(const Rows<T>& rows, T* z, int64_t label, const T* teacher, Scratch<T>& scratch,
                             double* measured) {
  const int64_t vocab = rows.vocab;
  const T lowest = static_cast<T>(lowest_log_probability), scale = static_cast<T>(1 / rows.temperature);
  T *log_p = scratch.log_p.data(), *slope = scratch.slope.data(), *const log_q = z;
  const T top = simd_max(z, vocab), teacher_top = simd_max(teacher, vocab);
  int64_t likely = 0;
  while (likely < vocab && teacher[likely] != teacher_top) ++likely;
  measured[kAgrees] = likely < vocab && z[likely] >= top;
  measured[kTailMass] = measured[kTailDivergence] = 0;
  const double label_logit = static_cast<double>(z[label] - top);

  shift_and_scale(teacher, vocab, teacher_top, scale, slope);
  const T teacher_sum = static_cast<T>(std::log(simd_exp_sum(slope, vocab, T(0))));
  for (int64_t j = 0; j < vocab; ++j) log_p[j] = not_below((teacher[j] - teacher_top) * scale - teacher_sum, lowest);
  shift_and_scale(z, vocab, top, scale, slope);
  const double soft_log_sum = std::log(simd_exp_sum(slope, vocab, T(0)));
  double log_sum = soft_log_sum;
  if (scale != 1) {
    shift_and_scale(z, vocab, top, T(1), slope);
    log_sum = std::log(simd_exp_sum(slope, vocab, T(0)));
  }
  measured[kCrossEntropy] = log_sum - label_logit;
  const T student_sum = static_cast<T>(soft_log_sum);
  for (int64_t j = 0; j < vocab; ++j) log_q[j] = not_below((z[j] - top) * scale - student_sum, lowest);

  if (rows.interpolates) interpolate(log_p, log_q, vocab, rows.t);
  const CellSums sums = rows.cells(log_p, log_q, vocab, rows.coefficients, slope);
  measured[kDivergence] = sums.value;

  const T kd = static_cast<T>(rows.kd_weight * rows.temperature), all = static_cast<T>(sums.slope);
  const T ce = static_cast<T>(rows.ce_weight);
  if (scale == 1) {
    for (int64_t j = 0; j < vocab; ++j) z[j] = kd * slope[j] + simd_exp(log_q[j]) * (ce - kd * all);
  } else {
    const T back = static_cast<T>(rows.temperature), shift = static_cast<T>(log_sum - rows.temperature * soft_log_sum);
    for (int64_t j = 0; j < vocab; ++j)
      z[j] = kd * (slope[j] - simd_exp(log_q[j]) * all) + ce * simd_exp(log_q[j] * back - shift);
  }
  z[label] -= ce;
}

RETORT_SIMD void do_partition(const Rows<float>& rows, float* z, int64_t label, const int32_t* ids, const float* named,
                              const float* mass, Scratch<float>& scratch, double* measured) {
  partition_row(rows, z, label, ids, named, mass, scratch, measured);
}
RETORT_SIMD void do_partition(const Rows<double>& rows, double* z, int64_t label, const int32_t* ids,
                              const float* named, const float* mass, Scratch<double>& scratch, double* measured) {
  partition_row(rows, z, label, ids, named, mass, scratch, measured);
}
RETORT_SIMD void do_dense(const Rows<float>& rows, float* z, int64_t label, const float* teacher,
                          Scratch<float>& scratch, double* measured) {
  dense_row(rows, z, label, teacher, scratch, measured);
}
RETORT_SIMD void do_dense(const Rows<double>& rows, double* z, int64_t label, const double* teacher,
                          Scratch<double>& scratch, double* measured) {
  dense_row(rows, z, label, teacher, scratch, measured);
}

CellSums (*cells_of(const CellLoops& loops, float))(const float*, const float*, int64_t, const LossCoefficients&,
                                                    float*) {
  return loops.f32;
}
CellSums (*cells_of(const CellLoops& loops, double))(const double*, const double*, int64_t, const LossCoefficients&,
                                                     double*) {
  return loops.f64;
}

}  // namespace

void divergence_by_loops(const DivergenceChunk& chunk, const DivergenceOptions& options) {
  AT_DISPATCH_FLOATING_TYPES(chunk.logits.scalar_type(), "divergence", [&] {
    const bool dense = chunk.dense.defined();
    const Partition& p = chunk.partition;
    Rows<scalar_t> rows{.cells = cells_of(*options.loss->cells, scalar_t()),
                        .coefficients = options.loss->coefficients(options.parameter),
                        .interpolates = options.loss->interpolates,
                        .t = options.parameter,
                        .temperature = options.temperature,
                        .kd_weight = options.kd_weight,
                        .ce_weight = options.ce_weight,
                        .vocab = chunk.logits.size(1)};
    if (!dense) {
      rows.named = p.ids.size(1);
      rows.cell_count = p.log_mass.size(1);
      rows.cell_of = p.cell_of.const_data_ptr<uint8_t>();
    }
    const auto room = static_cast<size_t>(dense ? rows.vocab : rows.named + rows.cell_count);
    auto* z = chunk.logits.mutable_data_ptr<scalar_t>();
    auto* measured = chunk.measured.mutable_data_ptr<double>();
    const auto* label = chunk.labels.const_data_ptr<int64_t>();
    at::parallel_for(0, chunk.logits.size(0), 1, [&](int64_t begin, int64_t end) {
      Scratch<scalar_t> scratch;
      scratch.log_p.resize(room);
      scratch.slope.resize(room);
      if (!dense) {
        scratch.log_q.resize(room);
        scratch.row.resize(static_cast<size_t>(rows.vocab + 2 * rows.named));
      }
      for (int64_t r = begin; r < end; ++r)
        if (dense)
          do_dense(rows, z + r * rows.vocab, label[r], chunk.dense.const_data_ptr<scalar_t>() + r * rows.vocab, scratch,
                   measured + r * kMeasured);
        else
          do_partition(rows, z + r * rows.vocab, label[r], p.ids.const_data_ptr<int32_t>() + r * rows.named,
                       p.log_p.const_data_ptr<float>() + r * rows.named,
                       p.log_mass.const_data_ptr<float>() + r * rows.cell_count, scratch, measured + r * kMeasured);
    });
  });
}

}  // namespace retort
