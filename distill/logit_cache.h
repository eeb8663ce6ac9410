// What a teacher said about documents, kept on disk in a few dozen bytes a token. docs/distillation.md has the layout.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "data/loader.h"
#include "distill/cells.h"
#include "distill/targets.h"
#include "distill/teacher.h"

namespace retort {

/// What is stored of a position.
struct CacheOptions {
  int64_t top_k = 64;              ///< at most so many tokens are told apart: those of at least min_probability
  double min_probability = 0.006;  ///< at temperature 1; the most probable token is always told apart
  int64_t tail_clusters = 16;      ///< cells of the others, 1 to 255
  std::vector<double> temperatures = {1, 2, 4};  ///< at which the masses of the cells are stored
  int64_t tail_samples = 2;  ///< tokens drawn from the tail at temperature 1, for the estimator `sampled`
  bool full = false;         ///< also the whole distribution, in two bytes a token of the vocabulary
  int64_t seed = 42;         ///< of the cells and the draws
};
/// Error(usage) naming the option that is out of range.
void check_options(const CacheOptions& options);

/// Whose words a cache holds, about what. A cache is refused where another is expected.
struct CacheSubject {
  TeacherIdentity teacher;
  std::string tokenizer_hash;  ///< of the documents' token ids (the student's)
  std::string template_hash;   ///< ChatTemplate::hash()
  int64_t vocab = 0;           ///< of the student: the width of a distribution here
};

/// The `index`-th of `count` processes that fill one cache: each takes the documents whose hash falls to it.
struct CacheShare {
  int64_t index = 0, count = 1;
  int64_t shard_positions = 1 << 17;  ///< a shard is written when it has so many
};

struct CaptureReport {
  int64_t documents = 0, positions = 0;     ///< captured now
  int64_t documents_before = 0;             ///< of this data set, found in the cache
  int64_t teacher_tokens = 0;               ///< went through the teacher now
  double seconds = 0, teacher_seconds = 0;  ///< of the second: inside the teacher
  uint64_t bytes = 0;                       ///< written now
  std::set<std::string> sound = {};         ///< seals of the shards that were written now, or read whole against them
};

/// Asks the teacher about the trained positions of every document of `data` that the cache does not hold yet, and
/// appends what it says to the cache in `folder`, made when missing. The teacher takes the data set's token ids; its
/// logits beyond `subject.vocab` are dropped, missing ones have no probability. Shards of 131,072 positions
/// appear whole under their names, so that what was finished stays whatever happens: Error(bad_input) naming document
/// and position for a logit that is NaN, Error(io) for a full disk, Error(retry) after a stop signal, with all finished
/// documents kept, or when another process fills the same share. A cache of another subject, other options or other
/// cells is refused with Error(bad_input).
CaptureReport capture(Teacher& teacher, const PackedDataset& data, const Cells& cells, const CacheSubject& subject,
                      const CacheOptions& options, const std::filesystem::path& folder, CacheShare share = {},
                      Progress progress = {});

/// The cells of the cache in `folder`; none where there is no cache yet. Several machines that fill one cache start
/// from copies of one folder that holds its cells.
std::optional<Cells> cells_of_cache(const std::filesystem::path& folder);

/// How a target is made of what is stored.
enum class Estimator {
  clustered,  ///< the stored tokens and the cells
  ghost,      ///< the stored tokens and one cell
  zero,       ///< the stored tokens renormalised, nothing else (DistillKit's default)
  sampled,    ///< the stored tokens and the draws from the tail, unbiased; temperature 1 and forward KL only
  full,       ///< the whole distribution, of a cache that was filled with `full`
};
/// "clustered" ...; Error(usage) naming those that there are.
Estimator estimator_named(const std::string& name);
const char* name_of(Estimator estimator);
/// Why a cache that was filled with `options` has no targets of `estimator` at `temperature`, and what to change; empty
/// when it has.
std::string cannot_estimate(const CacheOptions& options, double temperature, Estimator estimator);

class LogitCache {
 public:
  /// Checks every shard against its seal and the manifest. Error(bad_input) naming the file that is missing, cut or
  /// edited, or what was expected and what the cache holds: teacher, tokenizer, template, vocabulary. Of shards whose
  /// seals are in `sound` (CaptureReport's) not every byte is read again.
  static std::shared_ptr<const LogitCache> open(const std::filesystem::path& folder, const CacheSubject& expected,
                                                const std::set<std::string>& sound = {});
  virtual ~LogitCache() = default;

  virtual const CacheSubject& subject() const = 0;
  virtual const CacheOptions& options() const = 0;
  virtual const Cells& cells() const = 0;
  virtual int64_t documents() const = 0;
  virtual int64_t positions() const = 0;
  /// The targets of the batch's trained positions, in their order, on the host. Error(bad_input) for a document that
  /// is not in the cache, naming its first tokens, for a temperature that is not, naming those that are, and for an
  /// estimator that needs what was not stored.
  virtual TeacherTargets targets(const Batch& batch, double temperature, Estimator estimator) const = 0;
  /// Whether every document of `data` is in the cache: Error(bad_input) naming the first that is not, how many are
  /// missing, and what to do.
  virtual void expect_all(const PackedDataset& data) const = 0;
};

/// A cache as the source of a run's targets. Error(bad_input) as targets(), at once.
TargetSource cached_targets(std::shared_ptr<const LogitCache> cache, double temperature, Estimator estimator);

/// What a cache's folder or one of its shards holds, for people: positions, bytes a token, the tail's mass, the
/// teacher. Error(bad_input) as LogitCache::open(); `verify`: each shard is read whole against its seal.
Json describe_cache(const std::filesystem::path& path, bool verify = true);
/// Whether `path` is a cache's folder or a shard of one.
bool is_cache(const std::filesystem::path& path);

}  // namespace retort
