// retort version: what this build is made of.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/core.h>
#include <llama.h>
#include <torch/version.h>

#include "cli/command.h"
#include "core/cpu.h"
#include "recipes/version.h"

namespace retort {

static std::function<int()> setup(CLI::App&) {
  return [] {
    fmt::print("retort {}\nLibTorch {}\nllama.cpp {}\nprocessor: {}\nthreads: {}\n", version(), TORCH_VERSION,
               llama_print_system_info(), cpu().model, at::get_num_threads());
    return 0;
  };
}

extern const Command command_version{"version", "Print the versions of Retort and its libraries.", "  retort version\n",
                                     setup};

}  // namespace retort
