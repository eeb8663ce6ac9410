#include "models/served.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "models/llama_runtime.h"
#include "models/served_pass.h"

namespace retort {

using Clock = std::chrono::steady_clock;

static double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

namespace {

/// Tokens of one call into llama_decode.
constexpr int64_t kChunk = 512;
/// Sequence 0 holds the beginning that all documents of a run share.
constexpr llama_seq_id kShared = 0;

struct Batch {
  explicit Batch(int32_t tokens) : raw(llama_batch_init(tokens, 0, kPassDocuments + 1)) {}
  ~Batch() { llama_batch_free(raw); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  void clear() { raw.n_tokens = 0; }
  void add(int32_t token, int64_t position, std::span<const llama_seq_id> sequences, bool output) {
    int32_t i = raw.n_tokens++;
    raw.token[i] = token;
    raw.pos[i] = static_cast<llama_pos>(position);
    raw.n_seq_id[i] = static_cast<int32_t>(sequences.size());
    std::copy(sequences.begin(), sequences.end(), raw.seq_id[i]);
    raw.logits[i] = output;
  }
  llama_batch raw;
};

class Served final : public ServedModel {
 public:
  Served(const std::filesystem::path& path, const ServedOptions& options) : batch_(static_cast<int32_t>(kChunk)) {
    path_ = path;
    options_ = options;
    LlamaCapture capture;
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = options.gpu_layers;
    model_ = load_llama(path, params);
    vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model_.get()));
    if (!llama_model_has_decoder(model_.get()) || llama_model_has_encoder(model_.get())) {
      fail(Exit::bad_input, "{}: not a decoder-only language model", path.string());
    }
    // A recurrent state belongs to one sequence at one position: it cannot be shared by documents.
    shares_ = !llama_model_is_recurrent(model_.get()) && !llama_model_is_hybrid(model_.get());
    if (!options.adapter.empty()) load_adapter(options.adapter);
    weight_bytes_ = capture.buffer_bytes();
  }

  ~Served() override { context_.reset(); }

  int64_t vocab() const override { return vocab_; }
  const llama_model* model() const override { return model_.get(); }
  int64_t memory_bytes() const override { return weight_bytes_ + context_bytes_; }

  at::Tensor logits(std::span<const int32_t> ids, std::span<const int64_t> wanted) override {
    ServedRequest request{{ids.begin(), ids.end()}, {wanted.begin(), wanted.end()}};
    for (size_t t = 0; wanted.empty() && t < ids.size(); ++t) request.wanted.push_back(static_cast<int64_t>(t));
    return read_on(request);
  }

  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    std::vector<ServedRequest> requests(documents.size());
    for (size_t i = 0; i < documents.size(); ++i) {
      requests[i].ids = documents[i];
      if (i < wanted.size()) requests[i].wanted = wanted[i];
      if (requests[i].wanted.empty()) {
        for (size_t t = 0; t < documents[i].size(); ++t) requests[i].wanted.push_back(static_cast<int64_t>(t));
      }
    }
    run(requests, each, {});
  }

  void run(std::span<const ServedRequest> requests, const std::function<void(size_t, const at::Tensor&)>& logits,
           const std::function<void(size_t, const Generated&)>& generated) override {
    if (requests.empty()) return;
    for (const ServedRequest& request : requests) check(request);
    const int64_t shared = shares_ ? shared_beginning(requests) : 0;
    std::vector<SharedPass> passes;
    int64_t cells = 0;
    for (size_t first = 0; first < requests.size(); first = passes.back().last) {
      passes.push_back(plan_pass(requests, first, shared, shares_));
      cells = std::max(cells, static_cast<int64_t>(passes.back().nodes.size()) + passes.back().generated);
    }
    reserve(shared + cells);
    clear();
    feed(requests[0].ids, 0, static_cast<size_t>(shared), [](size_t) { return false; });
    for (const SharedPass& pass : passes) run_pass(requests, pass, shared, logits, generated);
  }

  void read(const std::vector<std::vector<int32_t>>& documents,
            const std::function<void(size_t, const at::Tensor&, const at::Tensor&)>& each) override {
    for (const std::vector<int32_t>& ids : documents) check({ids, {}});
    size_t longest = 0;
    for (const std::vector<int32_t>& ids : documents) longest = std::max(longest, ids.size());
    reserve(static_cast<int64_t>(longest));
    llama_set_embeddings(context_.get(), true);
    const struct Off {
      llama_context* context;
      ~Off() { llama_set_embeddings(context, false); }
    } off{context_.get()};
    const int64_t width = llama_model_n_embd_out(model_.get());
    for (size_t first = 0, last = 0; first < documents.size(); first = last) {
      // As many whole documents as a chunk holds; a longer one comes alone, a chunk at a time.
      int64_t tokens = 0;
      for (; last < documents.size() && last - first < static_cast<size_t>(shares_ ? kPassDocuments : 1); ++last) {
        const auto more = static_cast<int64_t>(documents[last].size());
        if (tokens > 0 && tokens + more > kChunk) break;
        tokens += more;
      }
      clear();
      at::Tensor logits = at::empty({tokens, vocab_}, at::kFloat), hidden = at::empty({tokens, width}, at::kFloat);
      int64_t done = 0;
      batch_.clear();
      auto flush = [&] {
        if (batch_.raw.n_tokens == 0) return;
        decode();
        for (int32_t i = 0; i < batch_.raw.n_tokens; ++i, ++done) {
          copy_logits(i, logits[done]);
          const float* from = llama_get_embeddings_ith(context_.get(), i);
          if (!from) fail(Exit::internal, "{}: llama.cpp returned no hidden state", path_.string());
          std::memcpy(hidden[done].data_ptr<float>(), from, static_cast<size_t>(width) * sizeof(float));
        }
        batch_.clear();
      };
      for (size_t d = first; d < last; ++d) {
        for (size_t t = 0; t < documents[d].size(); ++t) {
          batch_.add(documents[d][t], static_cast<int64_t>(t), {{static_cast<llama_seq_id>(d - first)}}, true);
          if (batch_.raw.n_tokens == kChunk) flush();
        }
      }
      flush();
      for (size_t d = first, at = 0; d < last; at += documents[d++].size()) {
        const auto start = static_cast<int64_t>(at), length = static_cast<int64_t>(documents[d].size());
        each(d, logits.narrow(0, start, length), hidden.narrow(0, start, length));
      }
    }
  }

  Generated generate(std::span<const int32_t> prompt, int64_t limit, double temperature, uint64_t seed,
                     const std::function<void(int32_t)>& stream) override {
    check({{prompt.begin(), prompt.end()}, {}, limit, {}});
    reserve(static_cast<int64_t>(prompt.size()) + limit);
    clear();
    std::unique_ptr<llama_sampler, void (*)(llama_sampler*)> sampler(
        llama_sampler_chain_init(llama_sampler_chain_default_params()), llama_sampler_free);
    if (temperature > 0) {
      llama_sampler_chain_add(sampler.get(), llama_sampler_init_temp(static_cast<float>(temperature)));
      llama_sampler_chain_add(sampler.get(), llama_sampler_init_dist(static_cast<uint32_t>(seed)));
    } else {
      llama_sampler_chain_add(sampler.get(), llama_sampler_init_greedy());
    }
    Generated result;
    const auto start = Clock::now();
    const int64_t length = static_cast<int64_t>(prompt.size());
    feed(prompt, 0, prompt.size(), [&](size_t t) { return t + 1 == prompt.size(); });
    result.prompt_seconds = seconds_since(start);
    const llama_vocab* vocabulary = llama_model_get_vocab(model_.get());
    for (int64_t n = 0; n < limit; ++n) {
      int32_t token = llama_sampler_sample(sampler.get(), context_.get(), -1);
      if (n == 0) result.first_token_seconds = seconds_since(start);
      if (llama_vocab_is_eog(vocabulary, token)) {
        result.stopped = true;
        break;
      }
      result.ids.push_back(token);
      if (stream) stream(token);
      if (n + 1 == limit) break;
      batch_.clear();
      batch_.add(token, length + n, {{kShared}}, true);
      decode();
    }
    result.generation_seconds = seconds_since(start) - result.prompt_seconds;
    return result;
  }

 private:
  llama_memory_t memory() { return llama_get_memory(context_.get()); }
  void clear() {
    llama_memory_clear(memory(), false);
    held_.clear();
  }

  void load_adapter(const std::filesystem::path& path) {
    LlamaCapture capture(true);
    std::string reason;
    try {
      adapter_ = llama_adapter_lora_init(model_.get(), path.c_str());  // freed with the model
    } catch (const std::exception& error) {
      reason = error.what();
    }
    if (!adapter_) {
      fail(Exit::bad_input, "{}: llama.cpp cannot load this adapter for {}: {}", path.string(), path_.string(),
           reason.empty() ? capture.errors() : reason);
    }
  }

  void check(const ServedRequest& request) const {
    if (request.ids.empty()) fail(Exit::usage, "{}: a document without tokens has no logits", path_.string());
    for (int32_t id : request.ids) {
      if (id < 0 || id >= vocab_) {
        fail(Exit::usage, "{}: token {} is outside the vocabulary of {} tokens", path_.string(), id, vocab_);
      }
    }
    for (size_t i = 0; i < request.wanted.size(); ++i) {
      if (request.wanted[i] < (i ? request.wanted[i - 1] + 1 : 0) ||
          request.wanted[i] >= static_cast<int64_t>(request.ids.size())) {
        fail(Exit::internal, "wanted positions must ascend within [0, {}), found {}", request.ids.size(),
             request.wanted[i]);
      }
    }
  }

  /// Tokens [begin, end) of one document into the first sequence, a chunk at a time. `output` is asked of each token in
  /// order; `each` gets the places of those in llama.cpp's batch as soon as it is decoded.
  template <class Output>
  void feed(std::span<const int32_t> ids, size_t begin, size_t end, const Output& output,
            const std::function<void(int32_t)>& each = {}) {
    for (size_t next = begin; begin < end; begin = next) {
      next = std::min(end, begin + static_cast<size_t>(kChunk));
      batch_.clear();
      for (size_t t = begin; t < next; ++t) batch_.add(ids[t], static_cast<int64_t>(t), {{kShared}}, output(t));
      decode();
      for (int32_t i = 0; each && i < batch_.raw.n_tokens; ++i)
        if (batch_.raw.logits[i]) each(i);
    }
  }

  /// One document up to the last position that is wanted. Where it begins as the one before and only later positions
  /// are wanted it goes on from there, so that a long document can be asked about in pieces.
  at::Tensor read_on(const ServedRequest& request) {
    check(request);
    reserve(static_cast<int64_t>(request.ids.size()));
    const auto end = static_cast<size_t>(request.wanted.back()) + 1;
    if (held_.empty() || held_.size() > static_cast<size_t>(request.wanted.front()) ||
        !std::equal(held_.begin(), held_.end(), request.ids.begin()))
      clear();
    const at::Tensor all = at::empty({static_cast<int64_t>(request.wanted.size()), vocab_}, at::kFloat);
    const size_t begin = held_.size();
    held_.clear();  // of no use if the engine fails
    int64_t row = 0;
    auto next = request.wanted.begin();
    feed(
        request.ids, begin, end, [&](size_t t) { return *next == static_cast<int64_t>(t) && (++next, true); },
        [&](int32_t i) { copy_logits(i, all[row++]); });
    held_.assign(request.ids.begin(), request.ids.begin() + static_cast<int64_t>(end));
    return all;
  }

  void run_pass(std::span<const ServedRequest> requests, const SharedPass& pass, int64_t shared,
                const std::function<void(size_t, const at::Tensor&)>& logits,
                const std::function<void(size_t, const Generated&)>& generated) {
    const auto start = Clock::now();
    const auto documents = static_cast<llama_seq_id>(pass.paths.size());
    for (llama_seq_id s = 1; s <= documents && shared > 0; ++s) llama_memory_seq_cp(memory(), kShared, s, -1, -1);
    int64_t outputs = 0;
    std::vector<int64_t> row(pass.nodes.size(), -1);
    for (size_t n = 0; n < pass.nodes.size(); ++n) {
      if (pass.nodes[n].output) row[n] = outputs++;
    }
    at::Tensor all = at::empty({outputs, vocab_}, at::kFloat);
    for (size_t begin = 0; begin < pass.nodes.size(); begin += kChunk) {
      const size_t end = std::min(pass.nodes.size(), begin + kChunk);
      batch_.clear();
      for (size_t n = begin; n < end; ++n) {
        const PassNode& node = pass.nodes[n];
        batch_.add(node.token, node.position, node.sequences, node.output);
      }
      decode();
      for (size_t n = begin; n < end; ++n) {
        if (row[n] >= 0) copy_logits(static_cast<int32_t>(n - begin), all[row[n]]);
      }
    }
    if (logits) {
      for (size_t d = 0; d < pass.paths.size(); ++d) {
        const ServedRequest& request = requests[pass.first + d];
        if (request.wanted.empty()) continue;
        std::vector<int64_t> rows;
        for (int64_t position : request.wanted)
          rows.push_back(row[pass.paths[d][static_cast<size_t>(position - shared)]]);
        const auto count = static_cast<int64_t>(rows.size());
        const bool adjacent = rows.back() - rows.front() + 1 == count;  // they ascend; sharing leaves gaps
        logits(pass.first + d,
               adjacent ? all.narrow(0, rows.front(), count) : all.index_select(0, at::tensor(rows, at::kLong)));
      }
    }
    if (generated && pass.generated > 0) continue_pass(requests, pass, all, row, start, generated);
    for (llama_seq_id s = 1; s <= documents; ++s) llama_memory_seq_rm(memory(), s, -1, -1);
  }

  /// Greedy continuations of all documents of a pass that want one, one token of each at a time.
  void continue_pass(std::span<const ServedRequest> requests, const SharedPass& pass, const at::Tensor& logits,
                     const std::vector<int64_t>& row, Clock::time_point start,
                     const std::function<void(size_t, const Generated&)>& generated) {
    const llama_vocab* vocabulary = llama_model_get_vocab(model_.get());
    const double prompt_seconds = seconds_since(start);
    std::vector<Generated> results(pass.paths.size());
    std::vector<std::pair<size_t, int32_t>> live;  // document, its next token
    auto take = [&](size_t d, int32_t token) {
      const ServedRequest& request = requests[pass.first + d];
      Generated& result = results[d];
      if (result.ids.empty() && !result.stopped) result.first_token_seconds = seconds_since(start);
      if (llama_vocab_is_eog(vocabulary, token)) {
        result.stopped = true;
        return;
      }
      result.ids.push_back(token);
      if (static_cast<int64_t>(result.ids.size()) >= request.generate) return;
      if (request.go_on && !request.go_on(result.ids)) return;
      live.emplace_back(d, token);
    };
    for (size_t d = 0; d < pass.paths.size(); ++d) {
      results[d].prompt_seconds = prompt_seconds;
      if (requests[pass.first + d].generate <= 0) continue;
      take(d, static_cast<int32_t>(logits[row[pass.paths[d].back()]].argmax().item<int64_t>()));
    }
    at::Tensor next = at::empty({vocab_}, at::kFloat);
    while (!live.empty()) {
      batch_.clear();
      for (auto [d, token] : live) {
        const auto position = requests[pass.first + d].ids.size() + results[d].ids.size() - 1;
        batch_.add(token, static_cast<int64_t>(position), {{static_cast<llama_seq_id>(d + 1)}}, true);
      }
      decode();
      auto decoded = std::exchange(live, {});
      for (size_t i = 0; i < decoded.size(); ++i) {
        copy_logits(static_cast<int32_t>(i), next);
        take(decoded[i].first, static_cast<int32_t>(next.argmax().item<int64_t>()));
      }
    }
    for (size_t d = 0; d < pass.paths.size(); ++d) {
      if (requests[pass.first + d].generate <= 0) continue;
      results[d].generation_seconds = seconds_since(start) - prompt_seconds;
      generated(pass.first + d, results[d]);
    }
  }

  void copy_logits(int32_t i, const at::Tensor& to) {
    const float* from = llama_get_logits_ith(context_.get(), i);
    if (!from) fail(Exit::internal, "{}: llama.cpp returned no logits for token {} of a batch", path_.string(), i);
    std::memcpy(to.data_ptr<float>(), from, static_cast<size_t>(vocab_) * sizeof(float));
  }

  void decode() {
    LlamaCapture capture;
    if (int code = llama_decode(context_.get(), batch_.raw); code != 0) {
      fail(Exit::internal, "{}: llama.cpp could not decode a batch of {} tokens (code {}): {}", path_.string(),
           batch_.raw.n_tokens, code, capture.errors());
    }
  }

  /// Makes a context of at least `cells` tokens; keeps the present one when it is large enough.
  void reserve(int64_t cells) {
    cells = std::max<int64_t>({cells, options_.context, kPassTokens});
    if (context_ && llama_n_ctx(context_.get()) >= cells) return;
    if (cells > int64_t{1} << 30) fail(Exit::usage, "{}: a context of {} tokens is too long", path_.string(), cells);
    context_.reset();
    held_.clear();
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>((cells + 255) / 256 * 256);
    params.n_batch = params.n_ubatch = static_cast<uint32_t>(kChunk);
    params.n_seq_max = shares_ ? kPassDocuments + 1 : 2;
    params.kv_unified = true;
    params.pooling_type = LLAMA_POOLING_TYPE_NONE;  // read() gives each position's state
    params.swa_full = true;                         // a sliding-window cache forgets what a shared beginning needs
    params.no_perf = true;
    if (options_.exact) {
      params.type_k = params.type_v = GGML_TYPE_F32;
      params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;  // it rounds queries to f16
    }
    params.n_threads = params.n_threads_batch = options_.threads > 0 ? options_.threads : usable_cores();
    LlamaCapture capture;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) {
      fail(Exit::bad_input, "{}: llama.cpp cannot make a context of {} tokens: {}", path_.string(), params.n_ctx,
           capture.errors());
    }
    context_bytes_ = capture.buffer_bytes();
    if (adapter_) {
      float scale = 1;
      if (llama_set_adapters_lora(context_.get(), &adapter_, 1, &scale) != 0) {
        fail(Exit::bad_input, "{}: llama.cpp cannot apply the adapter to {}", options_.adapter.string(),
             path_.string());
      }
    }
  }

  Batch batch_;
  std::shared_ptr<llama_model> model_;
  llama_adapter_lora* adapter_ = nullptr;
  std::unique_ptr<llama_context, decltype([](llama_context* context) { llama_free(context); })> context_;
  std::vector<int32_t> held_;  ///< what read_on computed last: the tokens that sequence 0 holds
  int64_t vocab_ = 0, weight_bytes_ = 0, context_bytes_ = 0;
  bool shares_ = true;
};

}  // namespace

std::unique_ptr<ServedModel> ServedModel::open(const std::filesystem::path& path, const ServedOptions& options) {
  return std::make_unique<Served>(path, options);
}

}  // namespace retort
