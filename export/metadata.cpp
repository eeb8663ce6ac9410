#include "export/metadata.h"

#include <ggml.h>
#include <llama.h>

#include "data/vocabulary.h"
#include "models/family.h"

namespace retort {
namespace {

void set_if_given(GgufWriter& writer, const std::string& key, const std::string& value) {
  if (!value.empty()) writer.set_text(key, value);
}

/// general.* as the GGUF specification lists them, and hashes under keys of our own.
void set_provenance(GgufWriter& writer, const Provenance& provenance) {
  set_if_given(writer, "general.name", provenance.name);
  set_if_given(writer, "general.license", provenance.license);
  if (!provenance.base.empty()) {
    writer.set_u32("general.base_model.count", 1);
    writer.set_text("general.base_model.0.name", provenance.base);
    set_if_given(writer, "general.base_model.0.version", provenance.base_hash);
  }
  if (!provenance.data.empty()) {
    writer.set_u32("general.dataset.count", 1);
    writer.set_text("general.dataset.0.name", provenance.data);
    set_if_given(writer, "general.dataset.0.version", provenance.data_hash);
  }
  set_if_given(writer, "general.quantized_by", provenance.version);
  set_if_given(writer, "retort.version", provenance.version);
  set_if_given(writer, "retort.base_hash", provenance.base_hash);
  set_if_given(writer, "retort.data_hash", provenance.data_hash);
}

}  // namespace

void set_model_metadata(GgufWriter& writer, const Checkpoint& base, const Provenance& provenance,
                        const Imatrix* imatrix) {
  if (const GgufFile* file = base.gguf()) {
    writer.copy_metadata(*file);
    // What the base says of its own making is not true of this file.
    for (const std::string& key : file->keys())
      if (key.starts_with("quantize.imatrix.") ||
          (!provenance.base.empty() && key.starts_with("general.base_model.")) ||
          (!provenance.data.empty() && key.starts_with("general.dataset.")))
        writer.remove(key);
  } else {
    family_of(base.config()).write_metadata(base.config(), writer);
    write_vocabulary(base.path(), writer);
  }
  writer.set_text("general.type", "model");
  writer.set_u32("general.quantization_version", GGML_QNT_VERSION);
  writer.set_u32("general.file_type", LLAMA_FTYPE_ALL_F32);  // llama_model_quantize replaces it
  set_provenance(writer, provenance);
  set_if_given(writer, "tokenizer.chat_template", provenance.chat_template);
  if (imatrix) {
    // The keys that llama-quantize writes.
    writer.set_text("quantize.imatrix.dataset", fmt::format("{}", fmt::join(imatrix->datasets, ", ")));
    writer.set_u32("quantize.imatrix.entries_count", static_cast<int64_t>(imatrix->entries.size()));
    writer.set_u32("quantize.imatrix.chunks_count", imatrix->chunks);
  }
}

void set_adapter_metadata(GgufWriter& writer, const ModelConfig& config, const Provenance& provenance) {
  writer.set_text("general.type", "adapter");
  writer.set_text("general.architecture", config.architecture);
  writer.set_text("adapter.type", "lora");
  set_provenance(writer, provenance);
}

}  // namespace retort
