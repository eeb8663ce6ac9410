// retort cache-teacher: asks a recipe's teachers once about every training row, and keeps what they say.
#include <fmt/core.h>

#include <charconv>

#include "cli/command.h"
#include "core/signals.h"
#include "recipes/distill.h"

namespace retort {
namespace {

/// "2/8": the second of eight.
CacheShare share_from(const std::string& text) {
  CacheShare share;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, share.index);
  const auto second = first.ptr < end && *first.ptr == '/' ? std::from_chars(first.ptr + 1, end, share.count) : first;
  if (second.ptr != end || share.index < 1 || share.index > share.count)
    fail(Exit::usage, "--shard: found {}; give i/n with 1 <= i <= n, for instance 2/8", text);
  --share.index;
  return share;
}

std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe, shard = "1/1";
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "a recipe with a distill: block")->required();
  app.add_option("overrides", options->overrides, "key=value pairs that replace the recipe's");
  app.add_option("--shard", options->shard, "i/n: the i-th of n processes or machines that fill the cache together");
  app.add_flag("--json", options->json, "print JSON");
  return [options] {
    const CacheShare share = share_from(options->shard);
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    catch_stop_signals();
    const Prepared prepared = prepare(recipe, std::time(nullptr), stream_progress());
    const auto model = CausalLM::load(*prepared.checkpoint, load_options(recipe));
    const Json done = fill_caches(recipe, prepared, *model, share, stream_progress());
    if (options->json) {
      fmt::print("{}\n", done.dump(2));
      return 0;
    }
    for (const Json& one : done) {
      const auto positions = one["positions"].get<int64_t>(), tokens = one["teacher_tokens"].get<int64_t>();
      const auto seconds = one["seconds"].get<double>();
      fmt::print("{}\n  {}: {} new documents, {} trained tokens, {}", one["teacher"].get<std::string>(),
                 one["folder"].get<std::string>(), one["documents"].get<int64_t>(), positions,
                 format_bytes(one["bytes"].get<uint64_t>()));
      if (positions > 0)
        fmt::print(" ({:.1f} bytes a token); {:.0f} tokens/s", one["bytes"].get<double>() / double(positions),
                   double(tokens) / seconds);
      fmt::print("\n");
    }
    return 0;
  };
}

}  // namespace

extern const Command command_cache_teacher{
    "cache-teacher", "Ask a recipe's teachers about every training row, and keep what they say for training.",
    "  retort cache-teacher configs/distill/student.yaml\n"
    "  retort cache-teacher configs/distill/student.yaml --shard 2/8      # on the second of eight machines\n"
    "  retort inspect CACHE_FOLDER\n",
    setup};

}  // namespace retort
