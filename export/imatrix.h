// The importance matrix: how strongly each input column of each weight is used, so that quantization errors go where
// they matter least. Kept in the GGUF format of llama.cpp's llama-imatrix, whose files are read and whose readers read
// ours.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "models/causal_lm.h"

namespace retort {

struct Imatrix {
  struct Entry {
    std::vector<float>
        sum_squares;            ///< sum over tokens of x², one a column (a column of each expert, expert by expert)
    std::vector<float> counts;  ///< tokens, one an expert; [1] for a dense layer
  };
  std::map<std::string, Entry> entries;  ///< by the weight's GGUF name, "blk.0.attn_q.weight"
  std::vector<std::string> datasets;     ///< what it was collected on
  int64_t chunks = 0, chunk_size = 0;    ///< batches, and tokens in each at most
};

/// Runs the model over the batches that `next` gives until it returns false. The head is left out, as llama-imatrix
/// does.
Imatrix collect_imatrix(CausalLM& model, const std::function<bool(Batch&)>& next, const std::string& dataset);

void write_imatrix(const std::filesystem::path& path, const Imatrix& imatrix);

/// Error(bad_input) naming file and tensor for what is no importance matrix, or holds numbers that cannot be one.
Imatrix read_imatrix(const std::filesystem::path& path);

/// Mean of x² a column, as llama-quantize takes it; ones where nothing was counted.
std::vector<float> column_weights(const Imatrix::Entry& entry);

}  // namespace retort
