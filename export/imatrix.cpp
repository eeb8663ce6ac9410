#include "export/imatrix.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ggml.h>

#include <cmath>

#include "core/error.h"
#include "models/family.h"
#include "models/gguf.h"

namespace retort {
namespace {

constexpr const char* sums_suffix = ".in_sum2";
constexpr const char* counts_suffix = ".counts";

std::vector<float> values(const QuantizedTensor& tensor, const std::string& where) {
  if (tensor.type() != GGML_TYPE_F32)
    fail(Exit::bad_input, "{}: tensor {} is {}, allowed: F32", where, tensor.name(), tensor.type_name());
  const at::Tensor dense = tensor.dequantize();
  const float* data = dense.const_data_ptr<float>();
  std::vector<float> result(data, data + dense.numel());
  for (float value : result)
    if (!(value >= 0 && std::isfinite(value)))
      fail(Exit::bad_input, "{}: tensor {} holds {}, expected finite numbers from 0 up", where, tensor.name(), value);
  return result;
}

/// The span over a vector's bytes.
template <typename T>
std::span<const uint8_t> bytes_of(const std::vector<T>& data) {
  return {reinterpret_cast<const uint8_t*>(data.data()), data.size() * sizeof(T)};
}

}  // namespace

Imatrix collect_imatrix(CausalLM& model, const std::function<bool(Batch&)>& next, const std::string& dataset) {
  const at::NoGradGuard no_grad;
  std::map<std::string, std::string> gguf_names;
  for (const TensorSpec& spec : family_of(model.config()).tensors(model.config())) gguf_names[spec.name] = spec.gguf;

  struct Sum {
    at::Tensor squares;
    int64_t tokens = 0;
  };
  std::map<std::string, Sum> sums;
  model.observe([&](const std::string& linear, const at::Tensor& x) {
    if (linear == "lm_head") return;
    Sum& sum = sums[gguf_names.at(linear + ".weight")];
    const at::Tensor squares = x.to(at::kFloat).square().sum(0, false, at::kDouble);
    sum.squares = sum.squares.defined() ? sum.squares.add_(squares) : squares;
    sum.tokens += x.size(0);
  });
  Imatrix imatrix;
  imatrix.datasets = {dataset};
  try {
    for (Batch batch; next(batch);) {
      model.hidden(batch);
      ++imatrix.chunks;
      imatrix.chunk_size = std::max(imatrix.chunk_size, batch.tokens());
    }
  } catch (...) {
    model.observe({});
    throw;
  }
  model.observe({});
  for (const auto& [name, sum] : sums) {
    const at::Tensor squares = sum.squares.to(at::kCPU, at::kFloat);
    const float* data = squares.const_data_ptr<float>();
    imatrix.entries[name] = {{data, data + squares.numel()}, {static_cast<float>(sum.tokens)}};
  }
  if (imatrix.entries.empty()) fail(Exit::bad_input, "importance matrix: {} gave no rows to collect it on", dataset);
  return imatrix;
}

void write_imatrix(const std::filesystem::path& path, const Imatrix& imatrix) {
  GgufWriter writer;
  writer.set_text("general.type", "imatrix");
  writer.set_texts("imatrix.datasets", imatrix.datasets);
  writer.set_u32("imatrix.chunk_count", imatrix.chunks);
  writer.set_u32("imatrix.chunk_size", imatrix.chunk_size);
  const auto shape = [](const Imatrix::Entry& entry, size_t size) {
    const auto experts = static_cast<int64_t>(entry.counts.size());
    return std::vector<int64_t>{experts, static_cast<int64_t>(size) / experts};
  };
  for (const auto& [name, entry] : imatrix.entries) {
    writer.add(name + sums_suffix, GGML_TYPE_F32, shape(entry, entry.sum_squares.size()));
    writer.add(name + counts_suffix, GGML_TYPE_F32, shape(entry, entry.counts.size()));
  }
  writer.begin(path);
  for (const auto& [name, entry] : imatrix.entries) {
    writer.write(name + sums_suffix, bytes_of(entry.sum_squares));
    writer.write(name + counts_suffix, bytes_of(entry.counts));
  }
  writer.commit();
}

Imatrix read_imatrix(const std::filesystem::path& path) {
  const auto file = GgufFile::open(path);
  const std::string where = path.string();
  if (const std::string type = file->text("general.type", ""); type != "imatrix")
    fail(Exit::bad_input, "{}: general.type is \"{}\", allowed: imatrix; llama-imatrix writes such files", where, type);
  Imatrix imatrix;
  imatrix.datasets = file->texts("imatrix.datasets");
  imatrix.chunks = file->integer("imatrix.chunk_count");
  imatrix.chunk_size = file->integer("imatrix.chunk_size");
  for (const QuantizedTensor& tensor : file->tensors()) {
    const std::string& name = tensor.name();
    if (name.ends_with(counts_suffix)) continue;
    if (!name.ends_with(sums_suffix))
      fail(Exit::bad_input, "{}: tensor {}: an importance matrix holds only *{} and *{}", where, name, sums_suffix,
           counts_suffix);
    const std::string weight = name.substr(0, name.size() - std::string(sums_suffix).size());
    const QuantizedTensor* counts = file->find(weight + counts_suffix);
    if (!counts) fail(Exit::bad_input, "{}: tensor {}{} is missing", where, weight, counts_suffix);
    Imatrix::Entry entry{values(tensor, where), values(*counts, where)};
    if (entry.counts.empty() || entry.sum_squares.size() % entry.counts.size() != 0)
      fail(Exit::bad_input, "{}: tensor {} has {} numbers, which {} counts do not divide", where, name,
           entry.sum_squares.size(), entry.counts.size());
    imatrix.entries[weight] = std::move(entry);
  }
  if (imatrix.entries.empty()) fail(Exit::bad_input, "{}: holds no tensor", where);
  return imatrix;
}

std::vector<float> column_weights(const Imatrix::Entry& entry) {
  const size_t columns = entry.sum_squares.size() / entry.counts.size();
  std::vector<float> means(entry.sum_squares.size(), 1);
  for (size_t i = 0; i < means.size(); ++i)
    if (const float count = entry.counts[i / columns]; count > 0) means[i] = entry.sum_squares[i] / count;
  return means;
}

}  // namespace retort
