// Rows -> tokens -> windows -> an HDF5 file in the cache, made once for each data, tokenizer, template and options.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "data/encode.h"
#include "data/loader.h"

namespace retort {

struct PackedOptions {
  EncodeOptions encode;
  bool packing = true;
};

/// Seen after every window; rows read and tokens kept so far.
using DatasetProgress = std::function<void(int64_t rows, int64_t tokens)>;

/// SHA-256 over what decides a dataset's bytes.
std::string dataset_key(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const PackedOptions& options,
                        const std::string& data_hash);

/// The packed dataset of the rows that `rows` gives. `data_hash` stands for them: when cache_folder()/datasets/<key>.h5
/// is there and undamaged, no row is read. A damaged file is made again. Rows and windows are streamed: memory is one
/// packing pool. Several processes may ask for the same key at once; one builds, the others wait. Error(bad_input) as
/// encode() says, and when no row is left.
std::unique_ptr<PackedDataset> build_dataset(const Stream<Chat>& rows, const Tokenizer& tokenizer,
                                             const ChatTemplate& chat_template, const PackedOptions& options,
                                             const std::string& data_hash, const DatasetProgress& progress = {});

/// A file that build_dataset made. Error(bad_input) naming the file when it is damaged or contradicts itself.
std::unique_ptr<PackedDataset> open_dataset(const std::filesystem::path& path);

}  // namespace retort
