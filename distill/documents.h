// The documents of a batch, and the hash that finds one whatever the batch: in a cache, a recording, a pair of texts.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <span>

#include "models/batch.h"

namespace retort {

/// 128 bits of hash of a document's token ids.
struct DocumentKey {
  uint64_t high = 0, low = 0;
  auto operator<=>(const DocumentKey&) const = default;
};
DocumentKey document_key(std::span<const int32_t> ids);

struct BatchDocument {
  std::span<const int32_t> ids;
  std::span<const int64_t> trained;  ///< its positions, from 0, whose next token is trained
  int64_t offset = 0;                ///< of its first token in the batch
};

/// Calls each(document) for the batch's documents in their order; the spans are of that call.
void for_documents(const Batch& batch, const std::function<void(const BatchDocument&)>& each);

}  // namespace retort
