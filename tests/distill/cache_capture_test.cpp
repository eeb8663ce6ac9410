// What interrupts a capture, and what damages a cache.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/Parallel.h>

#include <csignal>
#include <fstream>

#include "core/files.h"
#include "distill/cache_folder.h"
#include "tests/distill/cache_fixture.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

using CacheCapture = Cache;

std::string with_byte_changed(std::string bytes, size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  return bytes;
}

TEST_F(CacheCapture, GoesOnAtTheLastWholeShardAfterAKill) {
  const FakeDataset data = fake_data(60);
  const CacheShare small{0, 1, 200};
  const pid_t child = fork();
  if (child == 0) {
    at::set_num_threads(1);  // OpenMP's threads do not survive a fork
    teacher_.before = [&](std::vector<at::Tensor>&) {
      if (teacher_.asked == 50) _exit(9);
    };
    fill(data, small);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WEXITSTATUS(status), 9);
  const int64_t kept = open()->documents();
  EXPECT_GT(kept, 20);
  EXPECT_LE(kept, 50);
  const CaptureReport rest = fill(data, small);
  EXPECT_EQ(rest.documents_before, kept);
  EXPECT_EQ(rest.documents, 60 - kept);
  EXPECT_EQ(teacher_.asked, 60 - kept) << "no document was asked for twice";
  open()->expect_all(data);
  EXPECT_EQ(fill(data).documents, 0);

  TemporaryFolder whole;
  capture(teacher_, data, cells_, subject(), options_, whole.path());
  const Batch batch = data.batch(std::vector<int64_t>{3, 59, 31});
  EXPECT_TRUE(
      at::equal(open()->targets(batch, 2, Estimator::clustered).partition.log_mass,
                LogitCache::open(whole.path(), subject())->targets(batch, 2, Estimator::clustered).partition.log_mass));
}

TEST_F(CacheCapture, IsSharedByProcesses) {
  const FakeDataset data = fake_data(50);
  const CaptureReport first = fill(data, {0, 3});
  expect_error(Exit::bad_input, {"not in the cache"}, [&] { open()->expect_all(data); });
  // The other two ran elsewhere, from a copy of the folder with the cells; then all files came together.
  TemporaryFolder elsewhere;
  fs::copy(cells_path(folder_.path()), cells_path(elsewhere.path()));
  int64_t documents = first.documents;
  for (int64_t i : {1, 2})
    documents +=
        capture(teacher_, data, *cells_of_cache(elsewhere.path()), subject(), options_, elsewhere.path(), {i, 3})
            .documents;
  EXPECT_EQ(documents, 50);
  EXPECT_EQ(teacher_.asked, 50);
  for (const auto& entry : fs::directory_iterator(elsewhere.path()))
    if (entry.path().extension() != ".lock") fs::copy(entry.path(), folder_.path(), fs::copy_options::skip_existing);
  open()->expect_all(data);
  EXPECT_EQ(open()->documents(), 50);
  EXPECT_EQ(fill(fake_data(50)).documents, 0) << "a single process goes on where three were";

  const FileLock held(folder_ / "share-1-of-3.lock");
  expect_error(Exit::retry, {"share-1-of-3.lock"}, [&] { fill(data, {1, 3}); });
  expect_error(Exit::usage, {"share 3 of 3"}, [&] { fill(data, {3, 3}); });
}

TEST_F(CacheCapture, KeepsWhatWasFinishedWhenATeacherGivesNaN) {
  const FakeDataset data = fake_data(20);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    TemporaryFolder folder;
    const auto fill = [&] { return capture(teacher_, data, cells_, subject(), options_, folder.path()); };
    teacher_.asked = 0;
    teacher_.before = [&](std::vector<at::Tensor>& rows) {
      if (teacher_.asked == 12) rows[1].slice(0, 0, std::isnan(bad) ? 1 : cache_vocab).fill_(bad);
    };
    expect_error(Exit::bad_input, {"position 1 are NaN or infinite"}, fill);
    EXPECT_EQ(LogitCache::open(folder.path(), subject())->documents(), 12);
    teacher_.before = {};
    EXPECT_EQ(fill().documents, 8);
  }
}

TEST_F(CacheCapture, OnAFullDiskIsAnErrorThatKeepsFinishedShards) {
  const FakeDataset data = fake_data(60);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  options_.full = true;  // shards grow while they are filled
  teacher_.before = [&](std::vector<at::Tensor>&) {
    rlimit limit{30'000, before.rlim_max};
    if (teacher_.asked == 30) setrlimit(RLIMIT_FSIZE, &limit);
  };
  expect_error(Exit::io, {folder_.path().string()}, [&] { fill(data, {0, 1, 100}); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  teacher_.before = {};
  const int64_t kept = open()->documents();
  EXPECT_GT(kept, 5);
  EXPECT_LE(kept, 30);
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    EXPECT_EQ(entry.path().filename().string().find("partial"), std::string::npos) << entry.path();
  EXPECT_EQ(fill(data).documents, 60 - kept);
}

TEST_F(CacheCapture, RefusesDamagedAndForeignFiles) {
  const FakeDataset data = fake_data(20);
  fill(data);
  const fs::path shard = folder_ / "logits-0-of-1-00000.h5";
  const std::string sound = read_text(shard);
  for (size_t at = 3; at < sound.size(); at += sound.size() / 150) {
    write_atomic(shard, with_byte_changed(sound, at));
    expect_error(Exit::bad_input, {shard.string()}, [&] { open(); });
  }
  for (size_t size : {size_t{0}, size_t{100}, size_t{512}, sound.size() / 2, sound.size() - 1}) {
    write_atomic(shard, sound.substr(0, size));
    expect_error(Exit::bad_input, {shard.string()}, [&] { open(); });
  }
  write_atomic(shard, sound);
  open();

  TemporaryFolder other;
  options_.seed = 1;
  capture(teacher_, data, cells_, subject(), options_, other.path());
  fs::copy_file(other / shard.filename().string(), shard, fs::copy_options::overwrite_existing);
  expect_error(Exit::bad_input, {shard.string(), "not the one that the manifest lists"}, [&] { open(); });
  fs::remove(shard);
  expect_error(Exit::bad_input, {shard.string(), "missing"}, [&] { open(); });
  options_.seed = 42;
  EXPECT_EQ(fill(data).documents, 20) << "a shard that is taken away is captured again";
  open()->expect_all(data);

  Cells moved = cells_;
  moved.of = moved.of.roll(1);
  write_cells(cells_path(folder_.path()), moved);
  expect_error(Exit::bad_input, {"cells.h5", "not the ones"}, [&] { open(); });
}

TEST_F(CacheCapture, VouchesForTheShardsThatItReadOrWrote) {
  const FakeDataset data = fake_data(40);
  const CaptureReport one = fill(data, {0, 2}), both = fill(data, {1, 2});
  EXPECT_EQ(one.sound.size(), 1u);
  EXPECT_EQ(both.sound.size(), 2u) << "the other process's shard was read whole";
  EXPECT_EQ(LogitCache::open(folder_.path(), subject(), both.sound)->documents(), 40);
  // A flipped byte of the coded documents is a chunk's affair where the whole file was read before.
  const fs::path shard = folder_ / "logits-1-of-2-00000.h5";
  std::vector<uint8_t> code(64);
  Hdf5File::open(shard).read<uint8_t>("code", 0, code);
  std::string bytes = read_text(shard);
  const size_t at = bytes.find({reinterpret_cast<const char*>(code.data()), code.size()});
  ASSERT_NE(at, std::string::npos);
  write_atomic(shard, with_byte_changed(bytes, at));
  const auto cache = LogitCache::open(folder_.path(), subject(), both.sound);
  expect_error(Exit::bad_input, {shard.string(), "checksum"}, [&] {
    for (int64_t w = 0; w < 40; ++w) cache->targets(data.batch(std::vector<int64_t>{w}), 1, Estimator::clustered);
  });
  expect_error(Exit::bad_input, {shard.string(), "seal"},
               [&] { LogitCache::open(folder_.path(), subject(), one.sound); });
  expect_error(Exit::bad_input, {shard.string(), "seal"}, [&] { open(); });
}

// The seal does not protect from who makes one: bytes that no encoder wrote must read to an error, not to a crash.
TEST_F(CacheCapture, RefusesShardsWithASoundSealAndUnsoundBytes) {
  const FakeDataset data = fake_data(30);
  options_.tail_samples = 2;
  fill(data);
  const fs::path path = folder_ / "logits-0-of-1-00000.h5";
  const ShardReader sound(path, true);
  const ShardLayout layout{cache_vocab, 18, 2, false};
  const auto entries = sound.entries();
  const auto document = [&](const DocumentKey& key) {
    for (const FakeDocument& d : data.documents())
      if (document_key(d.ids) == key) return d.ids;
    return std::vector<int32_t>{};
  };
  int refused = 0;
  for (size_t e = 0; e + 1 < entries.size(); ++e) {
    EXPECT_NO_THROW(sound.read(entries[e], document(entries[e].key), layout));
    ShardReader::Entry wrong = entries[e];
    wrong.first_byte += 1;
    ShardReader::Entry cut = entries[e];
    cut.bytes /= 2;
    for (const ShardReader::Entry& entry : {wrong, cut}) {
      try {
        sound.read(entry, document(entry.key), layout);
      } catch (const Error& error) {
        EXPECT_EQ(error.exit(), Exit::bad_input);
        ++refused;
      }
    }
  }
  EXPECT_EQ(refused, 2 * (int(entries.size()) - 1));
  EXPECT_THROW(sound.read(entries[0], document(entries[0].key), {cache_vocab, 17, 2, false}), Error);
}

}  // namespace
}  // namespace retort
