// A cache gives back what was stored, whatever the order; its estimators are what they say.
#include <sys/resource.h>

#include <csignal>
#include <numeric>
#include <set>

#include "core/files.h"
#include "distill/cache_folder.h"
#include "tests/distill/cache_fixture.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> first(int64_t n) {
  std::vector<int64_t> windows(n);
  std::iota(windows.begin(), windows.end(), 0);
  return windows;
}

using CacheTargets = Cache;

TEST_F(CacheTargets, AreWithinTheStatedErrorOfTheTeacher) {
  const FakeDataset data = fake_data(60);
  fill(data);
  const auto cache = open();
  const std::vector<int64_t> windows = first(60);
  EXPECT_EQ(cache->documents(), 60);
  for (double temperature : {1.0, 2.0, 4.0}) {
    const TeacherTargets targets = cache->targets(data.batch(windows), temperature, Estimator::clustered);
    const at::Tensor truth = true_log_p(data, windows, temperature);
    ASSERT_EQ(targets.rows, truth.size(0));
    EXPECT_EQ(targets.rows, cache->positions());
    const Partition& p = targets.partition;
    const double bound = (log_p_step / temperature + mass_step(temperature)) / 2 + 1e-5;
    double total_error = 0;
    for (int64_t r = 0; r < targets.rows; ++r) {
      at::Tensor rest = truth[r].exp().clone();
      float before = INFINITY;
      int64_t stored = 0;
      for (int64_t i = 0; i < p.ids.size(1); ++i) {
        const auto id = p.ids[r][i].item<int64_t>();
        const auto log_p = p.log_p[r][i].item<float>();
        ASSERT_LE(log_p, before) << "the most probable comes first";
        before = log_p;
        if (id < 0) {
          ASSERT_EQ(log_p, -INFINITY);
          continue;
        }
        ++stored;
        ASSERT_NEAR(log_p, truth[r][id].item<double>(), bound) << "row " << r << " at " << temperature;
        rest[id] = 0;
      }
      ASSERT_GE(stored, 1);
      ASSERT_LE(stored, options_.top_k);
      for (int64_t c = 0; c < cells_.count; ++c) {
        const double mass = at::where(cells_.of == c, rest, at::zeros_like(rest)).sum().item<double>();
        if (mass < 1e-6) continue;
        ASSERT_NEAR(p.log_mass[r][c].item<float>(), std::log(mass), mass_step(temperature) + 1e-5) << "row " << r;
      }
      const double sum = (p.log_p[r].exp().sum() + p.log_mass[r].exp().sum()).item<double>();
      total_error = std::max(total_error, std::abs(sum - 1));
    }
    EXPECT_LT(total_error, 1e-5);
  }
  // The labels' are stored beside them.
  const ShardReader shard(folder_ / "logits-0-of-1-00000.h5", true);
  const auto entries = shard.entries();
  for (const int64_t w : windows) {
    const std::vector<int32_t>& ids = data.documents()[w].ids;
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const ShardReader::Entry& one) { return one.key == document_key(ids); });
    const CacheRows rows = shard.read(*entry, ids, {cache_vocab, 18, options_.tail_samples, false});
    const at::Tensor truth = true_log_p(data, std::vector<int64_t>{w}, 1);
    for (int64_t r = 0; r < rows.size(); ++r)
      EXPECT_NEAR(-log_p_step * rows.label_log_p[r],
                  std::max(-255.0 * log_p_step, truth[r][ids[rows.positions[r] + 1]].item<double>()), 0.0313);
  }
}

TEST_F(CacheTargets, AreFoundInAnyOrderAndBatch) {
  const FakeDataset data = fake_data(40);
  fill(data);
  const auto cache = open();
  const Partition all = cache->targets(data.batch(first(40)), 2, Estimator::clustered).partition;
  std::vector<int64_t> starts = {0};
  for (int64_t w = 0; w < 40; ++w) starts.push_back(starts.back() + data.window_trained(w));
  for (const std::vector<int64_t>& windows : std::vector<std::vector<int64_t>>{{39}, {7, 3, 21}, {0, 39, 5, 5}}) {
    const Partition some = cache->targets(data.batch(windows), 2, Estimator::clustered).partition;
    int64_t at = 0;
    for (int64_t w : windows) {
      const int64_t n = starts[w + 1] - starts[w];
      const auto of = [&](const at::Tensor& t, int64_t begin) { return t.slice(0, begin, begin + n); };
      EXPECT_TRUE(at::equal(of(some.log_mass, at), of(all.log_mass, starts[w])));
      const int64_t k = some.ids.size(1);
      EXPECT_TRUE(at::equal(of(some.ids, at), of(all.ids, starts[w]).slice(1, 0, k)));
      EXPECT_TRUE(at::equal(of(some.log_p, at), of(all.log_p, starts[w]).slice(1, 0, k)));
      at += n;
    }
    EXPECT_EQ(at, some.ids.size(0));
  }
}

TEST_F(CacheTargets, OfAFinerPartitionAreNoFartherFromAStudent) {
  options_.full = true;
  const FakeDataset data = fake_data(30);
  fill(data);
  const auto cache = open();
  const std::vector<int64_t> windows = first(30);
  const at::Tensor truth = true_log_p(data, windows, 1);
  const at::Tensor noise = at::randn(truth.sizes(), at::make_generator<at::CPUGeneratorImpl>(4), at::kDouble);
  const at::Tensor log_q = at::log_softmax(truth * 0.7 + noise, 1);
  const auto kl = [&](Estimator estimator) {
    return partition_kl(cache->targets(data.batch(windows), 1, estimator).partition, log_q).mean().item<double>();
  };
  const at::Tensor full = cache->targets(data.batch(windows), 1, Estimator::full).dense(0, truth.size(0));
  EXPECT_LT((at::log_softmax(full.to(at::kDouble), 1) - truth).abs().max().item<double>(), 0.01);
  const double full_kl = (full.exp() * (full - log_q)).sum(1).mean().item<double>();
  const double clustered = kl(Estimator::clustered), ghost = kl(Estimator::ghost);
  EXPECT_GT(ghost, 0);
  EXPECT_LT(ghost, clustered);
  EXPECT_LT(clustered, full_kl);
}

TEST_F(CacheTargets, OfZeroAndFullNeedNoStoredTemperature) {
  options_.full = true;
  const FakeDataset data = fake_data(5);
  fill(data);
  const auto cache = open();
  const Partition zero = cache->targets(data.batch(first(5)), 3, Estimator::zero).partition;
  EXPECT_LT((zero.log_p.exp().sum(1) - 1).abs().max().item<double>(), 1e-5);
  EXPECT_TRUE(zero.log_mass.isinf().all().item<bool>());
  const at::Tensor truth = true_log_p(data, first(5), 3), ids = zero.ids.clamp_min(0).to(at::kLong);
  const at::Tensor top = truth.gather(1, ids).masked_fill(zero.ids < 0, -INFINITY);
  const at::Tensor expected = top - at::logsumexp(top, 1, true);
  EXPECT_LT((zero.log_p.exp() - expected.exp()).abs().max().item<double>(), 0.02);
  EXPECT_EQ(cache->targets(data.batch(first(5)), 3, Estimator::full).rows, truth.size(0));
}

// The mean over captures with many seeds is the teacher's distribution, tail and all.
TEST_F(CacheTargets, FromSampledTailsAreUnbiased) {
  options_.tail_samples = 4;
  options_.top_k = 3;
  options_.temperatures = {1};
  const RowMaker maker(cells_, options_);
  const FakeDataset data = fake_data(1, 9);
  const std::vector<int32_t>& ids = data.documents()[0].ids;
  const std::vector<int64_t> positions = {2};
  const at::Tensor logits = 0.5 * fake_logits(ids, 2).unsqueeze(0), truth = at::softmax(logits.to(at::kDouble), 1)[0];
  std::vector<double> count(cache_vocab);
  constexpr int captures = 20'000;
  for (uint64_t seed = 0; seed < captures; ++seed)
    for (int32_t id : maker.rows(logits, ids, positions, 1000 * seed).samples) count[id] += 1;
  const CacheRows rows = maker.rows(logits, ids, positions, 0);
  double tail = 1;
  for (int32_t id : rows.ids) {
    EXPECT_EQ(count[id], 0) << "a stored token was drawn";
    tail -= truth[id].item<double>();
  }
  double chi_squared = 0;
  for (int64_t id = 0; id < cache_vocab; ++id) {
    if (std::find(rows.ids.begin(), rows.ids.end(), id) != rows.ids.end()) continue;
    const double expected = 4.0 * captures * truth[id].item<double>() / tail;
    chi_squared += (count[id] - expected) * (count[id] - expected) / expected;
  }
  const double degrees = double(cache_vocab - int64_t(rows.ids.size())) - 1;
  EXPECT_LT(std::abs(chi_squared - degrees), 5 * std::sqrt(2 * degrees));

  fill(fake_data(8));
  const auto cache = open();
  const Partition p = cache->targets(fake_data(8).batch(first(8)), 1, Estimator::sampled).partition;
  EXPECT_LT((p.log_p.exp().sum(1) - 1).abs().max().item<double>(), 1e-5) << "the draws stand for the whole tail";
  EXPECT_TRUE(p.log_mass.isinf().all().item<bool>());
}

// A tail that is empty, and one of a single token, which every draw gives.
TEST_F(CacheTargets, AreDistributionsWhateverTheTail) {
  options_.top_k = 1;
  const FakeDataset data = fake_data(4);
  teacher_.before = [](std::vector<at::Tensor>& rows) {
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].slice(0, r % 3 == 2 ? cache_vocab : 0).fill_(-INFINITY);
      if (r % 3 != 2) rows[r][7] = 5;
      if (r % 3 == 1) rows[r][11] = 4.5;
    }
  };
  fill(data);
  const auto cache = open();
  const Batch batch = data.batch(first(4));
  expect_error(Exit::bad_input, {"wants temperature 1"}, [&] { cached_targets(cache, 2, Estimator::sampled); });
  for (const Estimator estimator : {Estimator::clustered, Estimator::ghost, Estimator::sampled, Estimator::zero}) {
    const Partition p = cache->targets(batch, 1, estimator).partition;
    const at::Tensor mass = p.log_p.exp().sum(1) + p.log_mass.exp().sum(1);
    EXPECT_LT((mass - 1).abs().max().item<double>(), 1e-5) << name_of(estimator);
    for (int64_t r = 0, in_document = 0, d = 0; r < p.ids.size(0); ++r, ++in_document) {
      const auto trained = (data.batch(std::vector<int64_t>{d}).labels >= 0).sum().item<int64_t>();
      if (in_document == trained) in_document = 0, ++d;
      std::vector<int64_t> ids;
      for (int64_t i = 0; i < p.ids.size(1); ++i)
        if (const auto id = p.ids[r][i].item<int64_t>(); id >= 0) ids.push_back(id);
      std::sort(ids.begin(), ids.end());
      EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end()) << "a token has one place";
      if (in_document % 3 == 0) {
        EXPECT_EQ(ids, std::vector<int64_t>{7}) << name_of(estimator);
        EXPECT_TRUE(p.log_mass[r].isinf().all().item<bool>()) << "no mass is none, not a little";
      }
      if (in_document % 3 == 1 && estimator == Estimator::sampled) {
        EXPECT_EQ(ids, (std::vector<int64_t>{7, 11}));
      }
    }
  }
}

// Draws on their own would miss this by several: of 40 draws a cell of mass m gets 40 m, to one.
TEST_F(CacheTargets, SpreadTheirDrawsOverTheCells) {
  options_.tail_samples = 40;
  options_.top_k = 3;
  const FakeDataset data = fake_data(1, 9);
  const std::vector<int32_t>& ids = data.documents()[0].ids;
  const at::Tensor logits = 0.5 * fake_logits(ids, 2).unsqueeze(0), truth = at::softmax(logits.to(at::kDouble), 1)[0];
  const auto* cell_of = cells_.of.const_data_ptr<uint8_t>();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const CacheRows rows = RowMaker(cells_, options_).rows(logits, ids, std::vector<int64_t>{2}, seed);
    std::vector<double> mass(cells_.count), drawn(cells_.count);
    for (int64_t id = 0; id < cache_vocab; ++id)
      if (std::find(rows.ids.begin(), rows.ids.end(), id) == rows.ids.end())
        mass[cell_of[id]] += truth[id].item<double>();
    for (int32_t id : rows.samples) ++drawn[cell_of[id]];
    const double tail = std::accumulate(mass.begin(), mass.end(), 0.0);
    for (int64_t c = 0; c < cells_.count; ++c) EXPECT_LT(std::abs(drawn[c] - 40 * mass[c] / tail), 1.001) << c;
  }
}

TEST_F(CacheTargets, WhoseTeacherHasFewerOrMoreTokensThanTheStudent) {
  const FakeDataset data = fake_data(6);
  for (int64_t width : {cache_vocab - 50, cache_vocab + 50}) {
    TemporaryFolder folder;
    teacher_.width = width;
    capture(teacher_, data, cells_, subject(), options_, folder.path());
    const auto cache = LogitCache::open(folder.path(), subject());
    const Partition p = cache->targets(data.batch(first(6)), 1, Estimator::clustered).partition;
    EXPECT_LT(p.ids.max().item<int64_t>(), std::min(width, cache_vocab));
    EXPECT_LT((p.log_p.exp().sum(1) + p.log_mass.exp().sum(1) - 1).abs().max().item<double>(), 1e-5);
  }
}

TEST_F(CacheTargets, AreRefusedForWhatTheCacheDoesNotHold) {
  options_.temperatures = {1, 2};
  options_.tail_samples = 0;
  FakeDataset data = fake_data(10);
  fill(data);
  const auto cache = open();
  const Batch batch = data.batch(first(10));
  expect_error(Exit::bad_input, {"no masses at temperature 3", "only at 1, 2"},
               [&] { cache->targets(batch, 3, Estimator::clustered); });
  expect_error(Exit::bad_input, {"temperature 4"}, [&] { cached_targets(cache, 4, Estimator::ghost); });
  expect_error(Exit::bad_input, {"tail_samples is 0"}, [&] { cached_targets(cache, 1, Estimator::sampled); });
  expect_error(Exit::bad_input, {"full: true"}, [&] { cached_targets(cache, 1, Estimator::full); });
  expect_error(Exit::usage, {"\"clusterd\"", "clustered, ghost, zero, sampled, full"},
               [] { estimator_named("clusterd"); });

  const FakeDataset other = fake_data(3, 77);
  const std::string tokens = fmt::format("[{}, {}, ", other.documents()[0].ids[0], other.documents()[0].ids[1]);
  expect_error(Exit::bad_input, {folder_.path().string(), tokens, "retort cache-teacher"},
               [&] { cache->targets(other.batch(first(1)), 1, Estimator::clustered); });
  expect_error(Exit::bad_input, {"3 documents", tokens}, [&] { cache->expect_all(other); });
  cache->expect_all(data);
  // Less of a document than when the cache was filled is fine, more is not.
  data.documents()[4].trained.back() = false;
  EXPECT_EQ(cache->targets(data.batch(std::vector<int64_t>{4}), 1, Estimator::clustered).rows, data.window_trained(4));
  std::fill(data.documents()[4].trained.begin(), data.documents()[4].trained.end(), true);
  expect_error(Exit::bad_input, {"is trained now, but was not when the cache was filled"},
               [&] { cache->targets(data.batch(std::vector<int64_t>{4}), 1, Estimator::clustered); });
}

TEST_F(CacheTargets, AreRefusedFromAnothersCacheByName) {
  fill(fake_data(3));
  const auto refused = [&](const std::vector<std::string>& parts, auto change) {
    CacheSubject other = subject();
    change(other);
    expect_error(Exit::bad_input, parts, [&] { LogitCache::open(folder_.path(), other); });
  };
  refused({"another teacher:", "teacher-hash there", "elsewhere in this run"},
          [](CacheSubject& s) { s.teacher.hash = "elsewhere"; });
  refused({"another engine of the teacher:", "fake there", "LibTorch in this run"},
          [](CacheSubject& s) { s.teacher.engine = "LibTorch"; });
  refused({"another quantization of the teacher:", "F32 there", "Q8_0 in this run"},
          [](CacheSubject& s) { s.teacher.quantization = "Q8_0"; });
  refused({"another tokenizer:", "tokens there", "bytes in this run"},
          [](CacheSubject& s) { s.tokenizer_hash = "bytes"; });
  refused({"another chat template:", "chatml"}, [](CacheSubject& s) { s.template_hash = "chatml"; });
  refused({"vocabulary", "500 there", "501 in this run"}, [](CacheSubject& s) { s.vocab = 501; });
  expect_error(Exit::bad_input, {"no cache", "retort cache-teacher"},
               [&] { LogitCache::open(folder_ / "nothing", subject()); });
  options_.top_k = 5;
  expect_error(Exit::bad_input, {"options.top_k is 12 there, 5 here"}, [&] { fill(fake_data(3)); });
  const fs::path manifest = manifest_path(folder_.path(), {});
  std::string text = read_text(manifest);
  text.replace(text.find("logit-cache-2"), 13, "logit-cache-1");
  write_atomic(manifest, text);
  expect_error(Exit::bad_input, {manifest.string(), "\"retort-logit-cache-1\"", "retort cache-teacher"},
               [&] { open(); });
}

// Where a recipe names no folder, what would be refused in one has another.
TEST_F(CacheTargets, OfEverySubjectHaveAFolderOfTheirOwn) {
  std::set<std::string> keys = {CacheHeader{subject(), options_, 0, ""}.key()};
  EXPECT_EQ(keys.begin()->size(), 16u);
  size_t subjects = 1;
  const auto differs = [&](auto change) {
    CacheHeader other{subject(), options_, 0, ""};
    change(other.subject, other.options);
    keys.insert(other.key());
    EXPECT_EQ(keys.size(), ++subjects);
  };
  differs([](CacheSubject& s, CacheOptions&) { s.vocab += 128; });  // the head of a padded student
  differs([](CacheSubject& s, CacheOptions&) { s.teacher.hash = "elsewhere"; });
  differs([](CacheSubject& s, CacheOptions&) { s.teacher.engine = "LibTorch"; });
  differs([](CacheSubject& s, CacheOptions&) { s.tokenizer_hash = "bytes"; });
  differs([](CacheSubject& s, CacheOptions&) { s.template_hash = "chatml"; });
  differs([](CacheSubject&, CacheOptions& o) { o.top_k = 5; });
  EXPECT_TRUE(keys.contains(CacheHeader{subject(), options_, 0, ""}.key()));
}

// What rounding loses is the KL of the teacher from the decoded partition, and what the cells hide is the entropy that
// the whole distribution has and its partition has not.
TEST_F(CacheTargets, LoseWhatTheStatisticsSay) {
  const FakeDataset data = fake_data(30);
  for (const std::vector<double>& temperatures : {std::vector<double>{1, 2}, std::vector<double>{2}}) {
    const TemporaryFolder folder;
    options_.temperatures = temperatures;
    capture(teacher_, data, cells_, subject(), options_, folder.path());
    const auto cache = LogitCache::open(folder.path(), subject());
    const Partition p = cache->targets(data.batch(first(30)), temperatures[0], Estimator::clustered).partition;
    const at::Tensor truth = true_log_p(data, first(30), temperatures[0]), plain = true_log_p(data, first(30), 1);
    double coding = 0, hidden = 0;
    for (int64_t r = 0; r < truth.size(0); ++r) {
      at::Tensor rest = truth[r].exp().clone(), plain_rest = plain[r].exp().clone();
      const auto add = [&](double mass, double known) { coding += mass > 0 ? mass * (std::log(mass) - known) : 0; };
      for (int64_t i = 0; i < p.ids.size(1); ++i) {
        const auto id = p.ids[r][i].item<int64_t>();
        if (id < 0) continue;
        add(rest[id].item<double>(), p.log_p[r][i].item<double>());
        rest[id] = plain_rest[id] = 0;
      }
      for (int64_t c = 0; c < cells_.count; ++c) {
        const at::Tensor in_cell = cells_.of == c, inside = plain_rest.index({in_cell});
        add(rest.index({in_cell}).sum().item<double>(), p.log_mass[r][c].item<double>());
        const at::Tensor share = inside / inside.sum();
        hidden -= (inside * at::where(share > 0, share.log(), at::zeros_like(share))).sum().item<double>();
      }
    }
    const Json json = describe_cache(folder.path());
    const auto n = static_cast<double>(truth.size(0));
    EXPECT_GT(coding, 0);
    EXPECT_NEAR(json["coding_nats"].get<double>(), coding / n, 1e-6);
    EXPECT_LT(json["coding_nats"].get<double>(), 0.01);
    EXPECT_NEAR(json["hidden_nats"].get<double>(), hidden / n, 1e-5 * hidden / n);
    EXPECT_EQ(describe_cache(folder.path(), false), json);
  }
}

TEST_F(CacheTargets, AreDescribedForPeople) {
  const FakeDataset data = fake_data(20);
  fill(data);
  EXPECT_TRUE(is_cache(folder_.path()));
  EXPECT_TRUE(is_cache(folder_ / "logits-0-of-1-00000.h5"));
  EXPECT_FALSE(is_cache(folder_ / "cells.h5"));
  EXPECT_EQ(describe_cache(folder_.path(), false), describe_cache(folder_.path())) << "the manifest says the same";
  for (const fs::path& path : {folder_.path(), folder_ / "logits-0-of-1-00000.h5"}) {
    const Json json = describe_cache(path);
    EXPECT_EQ(json["teacher"]["hash"], "teacher-hash");
    EXPECT_EQ(json["teacher"]["vocabulary"], cache_vocab + 12);
    EXPECT_EQ(json["vocabulary"], cache_vocab);
    EXPECT_GT(json["coding_nats"], 0);
    EXPECT_EQ(json["documents"], 20);
    EXPECT_EQ(json["positions"], open()->positions());
    EXPECT_EQ(json["options"]["temperatures"], Json({1.0, 2.0, 4.0}));
    const at::Tensor truth = true_log_p(data, first(20), 1).exp();
    const at::Tensor stored = std::get<0>(truth.topk(12, 1));
    const double tail = 1 - at::where(stored >= 0.01, stored, at::zeros_like(stored)).sum(1).mean().item<double>();
    EXPECT_NEAR(json["tail_mass"].get<double>(), tail, 0.03);
    EXPECT_NEAR(json["bytes_per_position"].get<double>() * json["positions"].get<double>(),
                double(fs::file_size(folder_ / "logits-0-of-1-00000.h5")), 1);
  }
}

}  // namespace
}  // namespace retort
