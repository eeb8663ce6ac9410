// Seals and hashes protect from damage, not from who makes them anew: files that were edited and sealed again.
#include <hdf5.h>

#include <functional>

#include "core/files.h"
#include "core/hash.h"
#include "distill/cache_folder.h"
#include "tests/distill/cache_fixture.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

constexpr size_t user_block = 512;

class CraftedCache : public Cache {
 protected:
  /// Edits an HDF5 file of the cache and gives it a seal that fits.
  void edit(const fs::path& path, const std::function<void(hid_t)>& change) {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(file, 0);
    change(file);
    H5Fclose(file);
    std::string bytes = read_text(path), seal;
    uint64_t hash = 0;
    for (size_t at = user_block; at < bytes.size(); at += size_t{1} << 20)
      hash = xxh3(std::string_view(bytes).substr(at, size_t{1} << 20), hash);
    seal = fmt::format("RETORT-HDF5-1 xxh3 {:016x} bytes {}\n", hash, bytes.size());
    bytes.replace(0, user_block, seal + std::string(user_block - seal.size(), '\0'));
    write_atomic(path, bytes);
  }
  /// The same with the cache's one shard, whose seal the manifest lists.
  void edit_shard(const std::function<void(hid_t)>& change) {
    edit(shard_, change);
    CacheManifest manifest = read_manifest(manifest_path(folder_.path(), {}));
    manifest.shards[0].seal = Hdf5File::seal_of(shard_);
    write_manifest(manifest_path(folder_.path(), {}), manifest);
  }
  void refuses(const fs::path& file, const std::vector<std::string>& parts) {
    std::vector<std::string> all = parts;
    all.push_back(file.string());
    expect_error(Exit::bad_input, all, [&] { open(); });
  }

  const fs::path shard_ = folder_ / "logits-0-of-1-00000.h5";
  const FakeDataset data_ = fake_data(20);
};

void set_rows(hid_t file, const char* name, hsize_t rows) {
  const hid_t array = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(array);
  hsize_t shape[2] = {};
  H5Sget_simple_extent_dims(space, shape, nullptr);
  shape[0] = rows;
  EXPECT_GE(H5Dset_extent(array, shape), 0) << name;
  H5Sclose(space);
  H5Dclose(array);
}

/// An array of zeros in the place of `name`.
void put_array(hid_t file, const char* name, hid_t type, hsize_t rows, hsize_t columns) {
  EXPECT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0) << name;
  const hsize_t shape[2] = {rows, columns};
  const hid_t space = H5Screate_simple(2, shape, nullptr);
  const hid_t array = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  EXPECT_GE(array, 0) << name;
  const std::vector<uint8_t> zeros(rows * columns * H5Tget_size(type));
  EXPECT_TRUE(columns == 0 || H5Dwrite(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()) >= 0);
  H5Dclose(array);
  H5Sclose(space);
}

TEST_F(CraftedCache, IsSealedAsTheProgramSeals) {
  fill(data_);
  edit_shard([](hid_t) {});
  EXPECT_EQ(open()->documents(), 20);
}

TEST_F(CraftedCache, WithMoreCellsThanItsShardsHold) {
  fill(data_);
  Cells more = cells_;  // the same table, so that its hash is right
  more.count = 200;
  write_cells(cells_path(folder_.path()), more);
  refuses(cells_path(folder_.path()), {"200 cells", "instead of 6"});
}

TEST_F(CraftedCache, WithCellsOfAnotherVocabulary) {
  cells_.of = cells_.of.slice(0, 0, cache_vocab - 1).clone();
  expect_error(Exit::bad_input, {"cells.h5", "499 tokens for a vocabulary of 500"}, [&] { fill(data_); });
}

TEST_F(CraftedCache, WithWholeDistributionsOfAnotherShape) {
  options_.full = true;
  fill(data_);
  const std::string sound = read_text(shard_);
  const auto positions = static_cast<hsize_t>(open()->positions());
  const std::vector<int64_t> windows = {0, 19};
  for (const auto& [rows, columns] : std::vector<std::pair<hsize_t, hsize_t>>{{positions, 0},
                                                                              {positions, 1},
                                                                              {positions, cache_vocab / 2},
                                                                              {positions, 2 * cache_vocab},
                                                                              {1, cache_vocab}}) {
    write_atomic(shard_, sound);
    edit_shard([&, r = rows, c = columns](hid_t file) { put_array(file, "full", H5T_NATIVE_UINT16, r, c); });
    const auto cache = open();
    expect_error(Exit::bad_input, {shard_.string(), "\"full\"", fmt::format("[{}, {}]", rows, columns)},
                 [&] { cache->targets(data_.batch(windows), 1, Estimator::full); });
  }
}

TEST_F(CraftedCache, WhoseArraysSayThatTheyAreHuge) {
  fill(data_);
  const std::string sound = read_text(shard_);
  for (const char* name : {"models", "prediction", "keys", "positions", "sizes", "code"}) {
    write_atomic(shard_, sound);
    edit_shard([&](hid_t file) { set_rows(file, name, hsize_t{1} << 45); });
    refuses(shard_, {name, "no file of"});
  }
  write_atomic(shard_, sound);
  edit_shard([](hid_t) {});
  open();
  edit(cells_path(folder_.path()), [](hid_t file) { set_rows(file, "cell_of", hsize_t{1} << 45); });
  refuses(cells_path(folder_.path()), {"cell_of", "no file of"});
}

// More than 255 tokens at a position fit neither the byte that counts them nor the ones after it.
TEST_F(CraftedCache, WhoseModelsCodeNumbersAboveAByte) {
  fill(data_);
  edit_shard([](hid_t file) {
    const hid_t array = H5Dopen2(file, "models", H5P_DEFAULT), space = H5Dget_space(array);
    std::vector<uint16_t> words(static_cast<size_t>(H5Sget_simple_extent_npoints(space)));
    H5Dread(array, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, words.data());
    words[1] = static_cast<uint16_t>(words[1] + 256);  // the least number of tokens
    EXPECT_GE(H5Dwrite(array, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, words.data()), 0);
    H5Sclose(space);
    H5Dclose(array);
  });
  refuses(shard_, {"table 0 of \"models\"", "at most 255"});
}

TEST_F(CraftedCache, WhoseStatisticsAreOfOtherDocuments) {
  fill(data_);
  const Json sound = ShardReader(shard_, false).statistics().to_json();
  for (const char* key : {"documents", "positions"}) {
    Json statistics = sound;
    statistics[key] = statistics[key].get<int64_t>() + 1;
    edit_shard([text = statistics.dump()](hid_t file) {
      H5Adelete(file, "statistics");
      const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
      H5Tset_size(type, text.size());
      const hid_t attribute = H5Acreate2(file, "statistics", type, space, H5P_DEFAULT, H5P_DEFAULT);
      EXPECT_GE(H5Awrite(attribute, type, text.data()), 0);
      H5Aclose(attribute);
      H5Sclose(space);
      H5Tclose(type);
    });
    refuses(shard_, {"statistics say"});
  }
}

}  // namespace
}  // namespace retort
