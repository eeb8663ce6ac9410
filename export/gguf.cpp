#include "export/gguf.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <llama.h>
#include <re2/re2.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "adapters/attach.h"
#include "adapters/merge.h"
#include "core/error.h"
#include "core/files.h"
#include "export/adapter_gguf.h"
#include "export/hf_folder.h"
#include "export/metadata.h"
#include "models/family.h"
#include "models/llama_runtime.h"

namespace retort {
namespace {

/// One tensor of the merged model on its way into a file.
struct Piece {
  TensorSpec spec;
  std::function<at::Tensor()> merged;  ///< makes it where it is not the base's
  int type = GGML_TYPE_F32;            ///< ggml_type to write
};

/// In the order of writing. Weights that change are F32, and so are norms and biases, which llama.cpp wants that way;
/// the rest keep their bytes unless the whole file is to be F32.
std::vector<Piece> pieces_of(const Checkpoint& base, CausalLM& model, bool all_f32) {
  const auto merged = merged_tensors(base, model);
  std::vector<Piece> pieces;
  const ModelConfig config = merged_config(base.config(), merged);
  for (TensorSpec& spec : family_of(config).tensors(config)) {
    Piece piece{.spec = std::move(spec), .merged = {}};
    const std::string& name = piece.spec.name;
    if (const auto made = merged.find(name); made != merged.end()) {
      piece.merged = made->second;
    } else if (!base.has(name)) {
      piece.merged = [shape = piece.spec.shape] { return at::zeros(shape, at::kFloat); };
    } else if (!all_f32 && piece.spec.shape.size() > 1) {
      // GGUF has no type for bitsandbytes' formats: what they stand for is written, and llama.cpp quantizes it.
      const QuantizedTensor stored = base.tensor(name);
      if (stored.is_ggml()) piece.type = stored.type();
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

/// The bytes of a piece in GGUF's row order.
void write_piece(GgufWriter& writer, const Checkpoint& base, const Piece& piece) {
  const std::vector<int64_t> order = rows_to_gguf(piece.spec);
  at::Tensor dense;
  if (piece.merged) {
    dense = piece.merged();
  } else {
    const QuantizedTensor stored = base.tensor(piece.spec.name);
    if (piece.type != GGML_TYPE_F32 || stored.type() == GGML_TYPE_F32) {
      writer.write(piece.spec.gguf, order.empty() ? stored.bytes() : stored.permute_rows(order).bytes());
      return;
    }
    dense = stored.dequantize(at::kFloat);
  }
  if (!order.empty()) dense = dense.index_select(0, at::tensor(order));
  if (piece.merged && !at::isfinite(dense).all().item<bool>())
    fail(Exit::bad_input, "{}: the merged weight is not finite; the adapter's numbers are too large", piece.spec.name);
  dense = dense.contiguous();
  writer.write(piece.spec.gguf, {static_cast<const uint8_t*>(dense.const_data_ptr()), dense.nbytes()});
}

/// The merged model as a GGUF file at `path`.
void write_merged(const std::filesystem::path& path, const Checkpoint& base, const std::vector<Piece>& pieces,
                  const Provenance& provenance, const Imatrix* imatrix) {
  const ModelConfig& config = base.config();
  GgufWriter writer;
  set_model_metadata(writer, base, provenance, imatrix);
  for (const Piece& piece : pieces) writer.add(piece.spec.gguf, piece.type, piece.spec.shape);
  const std::vector<float>& factors = config.rope_factors;
  const auto factor_count = static_cast<int64_t>(factors.size());
  if (factor_count > 0) writer.add("rope_freqs.weight", GGML_TYPE_F32, std::span(&factor_count, 1));
  writer.begin(path);
  for (const Piece& piece : pieces) write_piece(writer, base, piece);
  if (factor_count > 0)
    writer.write("rope_freqs.weight",
                 {reinterpret_cast<const uint8_t*>(factors.data()), factors.size() * sizeof(float)});
  writer.commit();
}

/// A file that is gone when this object is.
struct Scratch {
  std::filesystem::path path;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

/// Error(bad_input) for an importance matrix that was made for another model.
void check_imatrix(const Imatrix& imatrix, const std::vector<Piece>& pieces) {
  size_t matched = 0;
  for (const Piece& piece : pieces) {
    const auto entry = imatrix.entries.find(piece.spec.gguf);
    if (entry == imatrix.entries.end()) continue;
    ++matched;
    if (entry->second.sum_squares.size() != static_cast<size_t>(piece.spec.shape.back()))
      fail(Exit::bad_input, "importance matrix: {} has {} columns, the model's has {}; it was made for another model",
           piece.spec.gguf, entry->second.sum_squares.size(), piece.spec.shape.back());
  }
  if (matched == 0)
    fail(Exit::bad_input, "importance matrix: none of its {} tensors is in the model; it was made for another one",
         imatrix.entries.size());
}

/// Patterns for the weights that keep the base's blocks: what no adapter changes is not quantized a second time.
/// Without an adapter the base itself is to be in another type.
std::vector<std::pair<std::string, ggml_type>> kept_blocks(const std::vector<Piece>& pieces) {
  std::vector<std::pair<std::string, ggml_type>> kept;
  if (std::none_of(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.merged != nullptr; }))
    return kept;
  for (const Piece& piece : pieces) {
    const auto type = static_cast<ggml_type>(piece.type);
    if (!piece.merged && ggml_is_quantized(type))
      kept.emplace_back(fmt::format("^{}$", RE2::QuoteMeta(piece.spec.gguf)), type);
  }
  return kept;
}

void quantize(const std::filesystem::path& from, const std::filesystem::path& to, const GgufType& type,
              const std::vector<Piece>& pieces, const GgufOptions& options) {
  std::map<std::string, std::vector<float>> weights;
  std::vector<llama_model_imatrix_data> imatrix;
  if (options.imatrix) {
    for (const auto& [name, entry] : options.imatrix->entries) weights[name] = column_weights(entry);
    for (const auto& [name, data] : weights) imatrix.push_back({name.c_str(), data.data(), data.size()});
    imatrix.push_back({nullptr, nullptr, 0});
  }
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = options.threads > 0 ? options.threads : usable_cores();
  params.ftype = static_cast<llama_ftype>(type.ftype);
  params.allow_requantize = true;  // weights that no adapter changed come in the base's own blocks
  params.imatrix = imatrix.empty() ? nullptr : imatrix.data();
  const auto kept = kept_blocks(pieces);
  std::vector<llama_model_tensor_override> overrides;
  for (const auto& [pattern, block] : kept) overrides.push_back({pattern.c_str(), block});
  overrides.push_back({nullptr, GGML_TYPE_COUNT});
  params.tt_overrides = overrides.data();

  AtomicFile file(to);
  const LlamaCapture capture;
  errno = 0;
  if (llama_model_quantize(from.c_str(), file.temporary().c_str(), &params) != 0) {
    const int error = errno;
    if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO)
      fail(Exit::io, "{}: cannot be written: {}", to.string(), std::strerror(error));
    fail(Exit::bad_input, "{}: llama.cpp cannot quantize the model to {}: {}", to.string(), type.name,
         capture.errors());
  }
  file.commit();
}

ExportedFile measured(const std::filesystem::path& path, const std::string& format, const std::string& type) {
  const auto file = GgufFile::open(path);
  double bytes = 0, elements = 0;
  for (const QuantizedTensor& tensor : file->tensors()) {
    bytes += static_cast<double>(tensor.bytes().size());
    elements += static_cast<double>(tensor.elements());
  }
  return {path, format, type, static_cast<int64_t>(file->size()), 8 * bytes / elements};
}

uint64_t bytes_of(const std::vector<Piece>& pieces) {
  uint64_t bytes = 0;
  for (const Piece& piece : pieces) {
    uint64_t rows = 1;
    for (size_t i = 0; i + 1 < piece.spec.shape.size(); ++i) rows *= static_cast<uint64_t>(piece.spec.shape[i]);
    bytes += rows * ggml_row_size(static_cast<ggml_type>(piece.type), piece.spec.shape.back());
  }
  return bytes;
}

bool is_f32(const GgufType& type) { return type.ftype == LLAMA_FTYPE_ALL_F32; }

}  // namespace

int64_t export_scratch_bytes(const Checkpoint& base, CausalLM& model, const GgufType& type) {
  return is_f32(type) ? 0 : static_cast<int64_t>(bytes_of(pieces_of(base, model, false)));
}

ExportedFile export_gguf(const std::filesystem::path& path, const Checkpoint& base, CausalLM& model,
                         const GgufType& type, const Provenance& provenance, const GgufOptions& options) {
  check_imatrix_given(type, options.imatrix != nullptr);
  const std::vector<Piece> pieces = pieces_of(base, model, is_f32(type));
  if (options.imatrix) check_imatrix(*options.imatrix, pieces);
  const uint64_t needed = bytes_of(pieces);
  std::error_code unknown;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (const auto space = std::filesystem::space(folder, unknown); !unknown && space.available < needed)
    fail(Exit::io, "{}: {} bytes are free, the merged model takes {}; free some, or choose another output folder",
         folder.string(), space.available, needed);

  if (is_f32(type)) {
    write_merged(path, base, pieces, provenance, nullptr);
  } else {
    const Scratch scratch{path.string() + fmt::format(".merged-{}.tmp", ::getpid())};
    write_merged(scratch.path, base, pieces, provenance, options.imatrix);
    if (options.on_merged) options.on_merged(scratch.path);
    quantize(scratch.path, path, type, pieces, options);
  }
  return measured(path, "gguf", type.name);
}

void check_gguf_adapter(const ModelConfig& config, const AdapterOptions& options,
                        const std::vector<std::string>& targets) {
  if (const std::string why = more_than_products(options); !why.empty())
    fail(Exit::usage,
         "gguf_adapter: {} (adapter.kind: {}), which llama.cpp's adapters cannot hold; export a merged gguf", why,
         options.kind);
  if (config.tied && std::find(targets.begin(), targets.end(), "model.embed_tokens") != targets.end())
    fail(Exit::usage,
         "gguf_adapter: this model's head is its embedding, so llama.cpp would apply the embedding's adapter to both; "
         "leave embed_tokens out of target_modules, or export a merged gguf instead");
  if (config.tied && std::find(targets.begin(), targets.end(), "lm_head") != targets.end())
    fail(Exit::usage,
         "gguf_adapter: an adapter on lm_head needs a head of its own in the base, but this model's head is its "
         "embedding; leave lm_head out of target_modules, or export a merged gguf instead");
}

void check_merged_gguf(const AdapterOptions& options, const std::vector<std::string>& targets) {
  if (options.lora_bias && std::find(targets.begin(), targets.end(), "lm_head") != targets.end())
    fail(Exit::usage,
         "gguf: llama.cpp has no bias of the head, which lora_bias would train; leave lm_head out of "
         "target_modules, or lora_bias");
}

ExportedFile export_gguf_adapter(const std::filesystem::path& path, CausalLM& model, const Provenance& provenance) {
  return write_gguf_adapter(path, {path.string(), {}, {}, products_of(model)}, model.config(), provenance);
}

}  // namespace retort
