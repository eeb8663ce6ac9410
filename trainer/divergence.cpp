#include "trainer/divergence.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include "core/error.h"
#include "models/simd.h"
#include "trainer/divergence_chunk.h"

namespace retort {
namespace {

[[noreturn]] void misfit(const std::string& what) { fail(Exit::bad_input, "the teacher's targets: {}", what); }

/// The partition as the loops want it. What its ids index is checked here: they come from a file.
Partition checked(const Partition& partition, int64_t rows, int64_t vocab, at::Device device, bool tokens_matter) {
  const auto on_device = [&](const at::Tensor& x, at::ScalarType type) {
    return x.to(at::device(device).dtype(type)).contiguous();
  };
  for (const at::Tensor& x : {partition.ids, partition.log_p, partition.log_mass})
    if (!x.defined() || x.dim() != 2 || x.size(0) != rows)
      misfit(fmt::format("not [{}, …], one row a trained token", rows));
  if (!partition.ids.sizes().equals(partition.log_p.sizes())) misfit("ids and their probabilities differ in number");
  Partition out{.ids = on_device(partition.ids, at::kInt),
                .log_p = on_device(partition.log_p, at::kFloat),
                .cell_of = {},
                .log_mass = on_device(partition.log_mass, at::kFloat)};
  if (!tokens_matter) return out;
  if (!partition.cell_of.defined() || partition.cell_of.numel() != vocab)
    misfit(fmt::format("cells of {} tokens, but the student's head has {}",
                       partition.cell_of.defined() ? partition.cell_of.numel() : 0, vocab));
  out.cell_of = on_device(partition.cell_of, at::kByte);
  if (const auto cell = out.cell_of.max().item<int64_t>(); cell >= out.log_mass.size(1))
    misfit(fmt::format("a token lies in cell {}, and there are {}", cell, out.log_mass.size(1)));
  if (out.ids.numel() > 0)
    if (const auto id = out.ids.max().item<int64_t>(); id >= vocab)
      misfit(fmt::format("token {}, but the student's head has {}", id, vocab));
  return out;
}

at::Tensor checked(const at::Tensor& logits, int64_t rows, int64_t vocab, const at::TensorOptions& options,
                   bool tokens_matter) {
  if (logits.dim() != 2 || logits.size(0) != rows) misfit(fmt::format("logits are not [{}, vocabulary]", rows));
  if (tokens_matter && logits.size(1) != vocab)
    misfit(fmt::format("logits of {} tokens, but the student's head has {}", logits.size(1), vocab));
  return logits.to(options).contiguous();
}

}  // namespace

at::Tensor linear_divergence(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                             const TeacherTargets& targets, const DivergenceOptions& options, DivergenceRows* rows) {
  const at::Tensor on_device = labels.to(hidden.device()), trained = at::nonzero(on_device >= 0).squeeze(1);
  const at::Tensor wanted = on_device.index_select(0, trained);
  const int64_t n = trained.size(0);
  if (targets.rows != n) misfit(fmt::format("{} rows for {} trained tokens", targets.rows, n));
  if (n > 0)
    if (const auto label = wanted.max().item<int64_t>(); label >= head.out)
      fail(Exit::bad_input, "a label is {}, but the vocabulary has {} tokens", label, head.out);
  const bool tokens_matter = options.loss->cells;
  Partition partition;
  if (!targets.dense) partition = checked(targets.partition, n, head.out, hidden.device(), tokens_matter);
  const at::Tensor measured = at::empty({n, kMeasured}, hidden.options().dtype(at::kDouble));

  const LogitsLoss loss = [&](int64_t begin, const at::Tensor& logits) {
    const int64_t size = logits.size(0), end = begin + size;
    DivergenceChunk chunk{.logits = logits,
                          .labels = wanted.slice(0, begin, end),
                          .dense = {},
                          .partition = {},
                          .measured = measured.slice(0, begin, end)};
    if (targets.dense)
      chunk.dense = checked(targets.dense(begin, end), size, head.out, logits.options(), tokens_matter);
    else
      chunk.partition = {.ids = partition.ids.slice(0, begin, end),
                         .log_p = partition.log_p.slice(0, begin, end),
                         .cell_of = partition.cell_of,
                         .log_mass = partition.log_mass.slice(0, begin, end)};
    if (has_loops(logits) && options.loss->cells)
      divergence_by_loops(chunk, options);
    else
      divergence_by_operators(chunk, options);
    const at::Tensor sums = chunk.measured.sum(0);
    return sums[kDivergence] * (options.kd_weight * options.temperature * options.temperature) +
           sums[kCrossEntropy] * options.ce_weight;
  };
  const at::Tensor sum = linear_loss(head, hidden, trained, loss, options.chunk);
  if (rows)
    *rows = {.divergence = measured.select(1, kDivergence),
             .cross_entropy = measured.select(1, kCrossEntropy),
             .agrees = measured.select(1, kAgrees),
             .tail_mass = measured.select(1, kTailMass),
             .tail_divergence = measured.select(1, kTailDivergence)};
  return sum;
}

}  // namespace retort
