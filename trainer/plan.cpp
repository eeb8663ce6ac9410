#include "trainer/plan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "adapters/attach.h"
#include "core/memory.h"
#include "models/cross_entropy.h"
#include "models/quantized_matmul.h"
#include "trainer/optimizer.h"
#include "trainer/schedule.h"
#include "trainer/train.h"

namespace retort {
namespace {

// Pages of the program and its libraries that the first step brings in, LibTorch's above all.
constexpr int64_t kMoreLibraryBytes = int64_t{20} << 20;
// What the threads and the matrix products take once they run.
constexpr int64_t kThreadBytes = int64_t{16} << 20;
// What the allocator keeps between two uses and the matrix products' own buffers, as a part of the activations:
// measured between 0.95 and 1.5 on small and large models.
constexpr double kSlack = 1.3;
// Part of the matrix products' speed that a step reaches, with everything else that it does.
constexpr double kEfficiency = 0.75;

/// Numbers a token, from the block's own bookkeeping (models/block.cpp).
struct BlockSizes {
  double kept = 0;      ///< saved by one block for its backward
  double input = 0;     ///< saved with checkpointing
  double backward = 0;  ///< in one block's backward besides
  double forward = 0;   ///< in one block's forward, without a graph
};

BlockSizes block_sizes(const ModelConfig& c, double adapters) {
  const auto dim = static_cast<double>(c.dim), ffn = static_cast<double>(c.ffn);
  const auto q = static_cast<double>(c.heads * c.head_dim), kv = static_cast<double>(c.kv_heads * c.head_dim);
  BlockSizes s;
  s.input = dim;
  s.kept = 2 * dim + 2 * q + 2 * kv + static_cast<double>(c.heads) + 2 * ffn + adapters;
  // dy; then either the MLP's gradients and what it computes again, or, when what was saved for the MLP is gone, the
  // attention's with keys and values a query head
  s.backward = dim + std::max(2 * ffn + 2 * dim, 6 * q + 2 * kv - 2 * ffn);
  s.forward = 3 * dim + 3 * ffn;
  return s;
}

/// How the frozen weights lie.
struct Place {
  bool quantized = false;     ///< dequantized by tiles when they are used
  int64_t bytes_in_file = 0;  ///< that are pages of a mapped file
};

/// Where files are mapped, as begin -> end.
std::map<uint64_t, uint64_t> mapped_files() {
  std::map<uint64_t, uint64_t> found;
  std::ifstream maps("/proc/self/maps");  // "7f00-7f10 r--p 00000000 08:01 1234 /path": inode 0 is memory
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0, inode = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %*x %*x:%*x %lu", &begin, &end, &inode) == 3 && inode != 0)
      found[begin] = end;
  }
  return found;
}

const void* address_of(const FrozenMatrix& weight) {
  if (const QuantizedTensor* blocks = weight.blocks()) return blocks->bytes().data();
  const at::Tensor dense = weight.is_dense() ? weight() : at::Tensor();
  return dense.defined() && dense.is_cpu() ? dense.const_data_ptr() : nullptr;
}

Place place_of(CausalLM& model) {
  const auto linears = model.linears();
  Place place{.quantized = !linears.empty() && !linears[0]->weight.is_dense()};
  const auto files = mapped_files();
  std::set<const void*> seen;  // a tied head is the embedding's weight
  const auto count = [&](const FrozenMatrix& weight) {
    const void* address = address_of(weight);
    if (!address || !seen.insert(address).second) return;
    const auto next = files.upper_bound(reinterpret_cast<uint64_t>(address));
    if (next != files.begin() && reinterpret_cast<uint64_t>(address) < std::prev(next)->second)
      place.bytes_in_file += weight.bytes();
  };
  for (const Linear* linear : linears) count(linear->weight);
  count(model.embedding().weight);
  return place;
}

struct Sizes {
  CausalLM& model;
  Place place;
  BlockSizes block;
  int64_t trained_blocks = 0;      ///< from the lowest one with an adapter up
  int64_t adapter_parameters = 0;  ///< numbers

  explicit Sizes(CausalLM& m) : model(m), place(place_of(m)) {
    const ModelConfig& c = m.config();
    const auto linears = m.linears();
    double kept = 0;  // by the adapters, numbers a token
    for (size_t i = 0; i < linears.size(); ++i) {
      if (!linears[i]->adapter) continue;
      if (adapter_parameters == 0)  // the head is the last linear and belongs to no block
        trained_blocks = c.layers - static_cast<int64_t>(i) * c.layers / (static_cast<int64_t>(linears.size()) - 1);
      for (const auto& p : linears[i]->adapter->parameters()) adapter_parameters += p.tensor.numel();
      kept += static_cast<double>(linears[i]->adapter->kept_of_a_token());
    }
    if (m.embedding().adapter) {
      trained_blocks = c.layers;
      for (const auto& p : m.embedding().adapter->parameters()) adapter_parameters += p.tensor.numel();
    }
    block = block_sizes(c, trained_blocks ? kept / static_cast<double>(trained_blocks) : 0);
  }

  double element() const { return static_cast<double>(at::elementSize(model.dtype())); }
  /// What is dequantized at a moment of a weight with so many columns.
  double tiles(int64_t columns) const {
    return place.quantized ? static_cast<double>(tile_bytes(columns, model.dtype(), model.device())) : 0;
  }

  /// Of the trained blocks, those that run again in backward.
  int64_t blocks_again(const TrainOptions& options) const {
    if (!options.gradient_checkpointing) return 0;
    int64_t count = 0;
    for (int64_t i = model.config().layers - trained_blocks; i < model.config().layers; ++i)
      count += i % options.gradient_checkpointing_every == 0;
    return count;
  }

  double part_again(const TrainOptions& options) const {
    return static_cast<double>(blocks_again(options)) /
           static_cast<double>(std::max<int64_t>(1, model.config().layers));
  }

  /// Kept and momentary bytes of a micro-batch.
  std::pair<double, double> micro_batch(double tokens, double trained, const TrainOptions& options,
                                        bool training) const {
    const ModelConfig& c = model.config();
    const auto dim = static_cast<double>(c.dim), vocab = static_cast<double>(c.vocab);
    const auto again = static_cast<double>(blocks_again(options));
    const double whole = static_cast<double>(trained_blocks) - again;
    const bool elsewhere = options.activation_offloading && !model.device().is_cpu();
    const double kept = training ? tokens * (whole * block.kept + (elsewhere ? 0 : again) * block.input + 2 * dim) : 0;
    const double chunk = std::min(trained, static_cast<double>(default_chunk)) * vocab;
    const double head = 3 * trained * dim + tokens * dim + chunk;
    double one_block = tokens * block.backward;
    if (again > 0) one_block += tokens * (block.kept - block.input);
    if (!training) one_block = tokens * block.forward;
    const double workspace =
        std::max(head * element() + tiles(c.dim), kSlack * one_block * element() + tiles(std::max(c.ffn, c.dim)));
    return {kept * element(), workspace};
  }
};

/// Program and weights on a CPU, from what the process holds now. Parameters and weights that were converted are in its
/// own memory; other weights are pages of their file, which come in as they are used; what was read of the file to
/// convert weights stays until the system needs the room.
void count_process(const Sizes& sizes, int64_t parameter_bytes, MemoryPlan& plan) {
  release_free_memory();  // what the allocator kept of earlier work serves the run's
  const ResidentParts parts = resident_parts();
  const int64_t in_file = sizes.place.bytes_in_file;
  const int64_t own = static_cast<int64_t>(parts.own) - parameter_bytes - (plan.weights - in_file);
  plan.program = static_cast<int64_t>(parts.programs) + kMoreLibraryBytes + kThreadBytes + std::max<int64_t>(0, own);
  plan.weights += std::max<int64_t>(0, static_cast<int64_t>(parts.files) - in_file);
}

/// Floating-point operations a second of a block's frozen products at that many tokens, forward and backward, with the
/// dequantizing of its weights; 0 for a model without linear layers.
double measure_flops(CausalLM& model, int64_t tokens) {
  const auto linears = model.linears();
  const size_t count = linears.size() / static_cast<size_t>(std::max<int64_t>(1, model.config().layers));
  if (count == 0) return 0;
  const at::NoGradGuard no_grad;
  double flops = 0, seconds = 0;
  struct Product {
    const Linear& linear;
    at::Tensor x, y, dx, dy;
  };
  std::vector<Product> products;
  for (size_t i = 0; i < count; ++i) {
    const auto random = [&](int64_t size) { return at::rand({tokens, size}, at::kFloat).to(model.dtype()); };
    const at::Tensor x = random(linears[i]->in), dy = random(linears[i]->out);
    products.push_back({*linears[i], x, at::empty_like(dy), at::empty_like(x), dy});
    flops += 4.0 * static_cast<double>(tokens * linears[i]->in * linears[i]->out);
  }
  int rounds = 0;
  for (; rounds < 2 || seconds < 0.5; ++rounds) {
    const auto start = std::chrono::steady_clock::now();
    for (const Product& p : products) {
      base_forward(p.linear, p.x, p.y);
      base_backward(p.linear, p.dy, p.dx, false);
    }
    // The first round starts threads and brings weights into memory.
    if (rounds > 0) seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return flops * (rounds - 1) / seconds;
}

/// Operations of a step: the frozen weights forward and their inputs' gradients, the adapters forward and both
/// gradients, attention over documents of `length` tokens, the head for trained tokens. `again`: the part of
/// the blocks that checkpointing runs again.
double step_flops(const Sizes& sizes, double tokens, double trained, double length, double again, bool training) {
  const ModelConfig& c = sizes.model.config();
  const auto layers = static_cast<double>(c.layers), dim = static_cast<double>(c.dim);
  const auto q = static_cast<double>(c.heads * c.head_dim), kv = static_cast<double>(c.kv_heads * c.head_dim);
  const double weights = layers * (dim * (2 * q + 2 * kv) + 3 * dim * static_cast<double>(c.ffn));
  const double attention = layers * 2 * q * length;  // two products over half of the square
  const double head = 2 * dim * static_cast<double>(c.vocab);
  const double forward = tokens * (2 * weights + attention + 2 * static_cast<double>(sizes.adapter_parameters));
  if (!training) return forward + trained * head;
  const double backward = tokens * (2 * weights + 2.5 * attention + 4 * static_cast<double>(sizes.adapter_parameters));
  return forward * (1 + again) + backward + 2 * trained * head;
}

}  // namespace

Json TrainPlan::to_json() const {
  return {{"steps", steps},
          {"warmup_steps", warmup_steps},
          {"epochs", epochs},
          {"tokens", tokens},
          {"trained_tokens", trained_tokens},
          {"largest_micro_batch", largest_micro_batch},
          {"validations", validations},
          {"memory_bytes",
           {{"program", memory.program},
            {"weights", memory.weights},
            {"adapters", memory.adapters},
            {"activations", memory.activations},
            {"workspace", memory.workspace},
            {"total", memory.total()}}},
          {"tokens_per_second", tokens_per_second},
          {"seconds", seconds}};
}

namespace {

/// The plan without its time, and what a validation reads.
struct Walk {
  TrainPlan plan;
  int64_t validation_tokens = 0, validation_trained = 0;
};

Walk walk(const Sizes& sizes, const PackedDataset& data, const PackedDataset* validation, const TrainOptions& options,
          uint64_t seed) {
  Walk out{.plan = {.steps = total_steps(options, data.windows())}};
  TrainPlan& plan = out.plan;
  plan.warmup_steps = make_schedule(options, plan.steps).warmup_steps;
  std::pair<double, double> worst{0, 0};
  const auto consider = [&](const PackedDataset& from, std::span<const int64_t> windows, bool training) {
    int64_t tokens = 0, trained = 0;
    for (const int64_t w : windows) {
      tokens += from.window_tokens(w);
      trained += from.window_trained(w);
    }
    const auto bytes = sizes.micro_batch(static_cast<double>(tokens), static_cast<double>(trained), options, training);
    if (bytes.first + bytes.second > worst.first + worst.second) worst = bytes;
    return std::pair{tokens, trained};
  };
  Loader loader(data, seed);
  const auto micro = static_cast<size_t>(options.micro_batch_size);
  for (int64_t step = 0; step < plan.steps; ++step) {
    const auto windows = loader.next(options.windows_per_step());
    const std::span<const int64_t> all(windows);
    for (size_t begin = 0; begin < all.size(); begin += micro) {
      const auto [tokens, trained] = consider(data, all.subspan(begin, std::min(micro, all.size() - begin)), true);
      plan.tokens += tokens;
      plan.trained_tokens += trained;
      plan.largest_micro_batch = std::max(plan.largest_micro_batch, tokens);
    }
  }
  plan.epochs = static_cast<double>(loader.epoch()) +
                static_cast<double>(loader.position()) / static_cast<double>(data.windows());
  if (validation) {
    std::vector<int64_t> windows(static_cast<size_t>(validation->windows()));
    std::iota(windows.begin(), windows.end(), int64_t{0});
    for (size_t begin = 0; begin < windows.size(); begin += micro) {
      const auto part = std::span<const int64_t>(windows).subspan(begin, std::min(micro, windows.size() - begin));
      const auto [tokens, trained] = consider(*validation, part, false);
      out.validation_tokens += tokens;
      out.validation_trained += trained;
    }
    plan.validations = options.eval_steps ? (plan.steps + *options.eval_steps - 1) / *options.eval_steps : 1;
  }

  const bool cpu = sizes.model.device().is_cpu();
  const std::vector<Parameter> parameters = trainable_parameters(sizes.model);
  int64_t parameter_bytes = 0;
  for (const Parameter& p : parameters) parameter_bytes += static_cast<int64_t>(p.tensor.nbytes());
  const bool state_elsewhere = is_paged(options.optimizer) && !cpu;
  plan.memory = {.program = 0,
                 .weights = sizes.model.weight_bytes(),
                 .adapters = 2 * parameter_bytes + (state_elsewhere ? 0 : optimizer_state_bytes(parameters, options)),
                 .activations = static_cast<int64_t>(kSlack * worst.first),
                 .workspace = static_cast<int64_t>(worst.second)};
  if (cpu) count_process(sizes, parameter_bytes, plan.memory);
  return out;
}

}  // namespace

MemoryPlan plan_memory(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                       const TrainOptions& options, uint64_t seed) {
  return walk(Sizes(model), data, validation, options, seed).plan.memory;
}

TrainPlan plan_training(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                        const TrainOptions& options, uint64_t seed) {
  const Sizes sizes(model);
  auto [plan, validation_tokens, validation_trained] = walk(sizes, data, validation, options, seed);
  if (!model.device().is_cpu()) return plan;
  const auto mean_length = [](const Ledger& ledger) {
    return static_cast<double>(ledger.tokens) / static_cast<double>(std::max<int64_t>(1, ledger.rows));
  };
  const double speed = kEfficiency * measure_flops(model, std::clamp<int64_t>(plan.largest_micro_batch, 1, 1024));
  if (speed == 0) return plan;
  const double training = step_flops(sizes, static_cast<double>(plan.tokens), static_cast<double>(plan.trained_tokens),
                                     mean_length(data.ledger()), sizes.part_again(options), true) /
                          speed;
  plan.tokens_per_second = static_cast<double>(plan.tokens) / training;
  plan.seconds = training;
  if (validation)
    plan.seconds += static_cast<double>(plan.validations) *
                    step_flops(sizes, static_cast<double>(validation_tokens), static_cast<double>(validation_trained),
                               mean_length(validation->ledger()), 0, false) /
                    speed;
  return plan;
}

}  // namespace retort
