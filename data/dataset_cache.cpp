#include "data/dataset_cache.h"

#include <ATen/ATen.h>

#include <array>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "data/hdf5.h"
#include "data/packing.h"

namespace retort {
namespace {

constexpr const char* format_name = "retort-dataset-1";

/// A row of the array "windows".
enum Column { first_token, tokens, first_document, documents, trained, columns };
using WindowRow = std::array<int64_t, columns>;

Ledger ledger_from(const Json& json, const std::string& where) {
  Ledger ledger;
  ledger.rows = json_get<int64_t>(json, "rows", where);
  ledger.tokens = json_get<int64_t>(json, "tokens", where);
  ledger.trained_tokens = json_get<int64_t>(json, "trained_tokens", where);
  ledger.truncated = json_get<int64_t>(json, "truncated", where);
  ledger.dropped = json_get<std::map<std::string, int64_t>>(json, "dropped", where);
  return ledger;
}

class CachedDataset : public PackedDataset {
 public:
  explicit CachedDataset(const std::filesystem::path& path) : path_(path.string()), file_(Hdf5File::open(path)) {
    if (std::string format = file_.attribute("format"); format != format_name)
      fail(Exit::bad_input, "{}: the file's format is \"{}\", expected \"{}\"", path_, format, format_name);
    key_ = file_.attribute("key");
    ledger_ = ledger_from(parse_json(file_.attribute("ledger"), path_ + ": ledger"), path_ + ": ledger");
    windows_ = file_.rows("windows");
    file_.expect_array<int64_t>("windows", windows_, columns);
    file_.expect_array<int32_t>("ids", ledger_.tokens, 1);
    file_.expect_array<uint8_t>("trained", ledger_.tokens, 1);
    check_windows();
  }

  int64_t windows() const override { return windows_; }
  int64_t window_tokens(int64_t window) const override { return row(window)[tokens]; }
  int64_t window_trained(int64_t window) const override { return row(window)[trained]; }
  const Ledger& ledger() const override { return ledger_; }
  std::string key() const override { return key_; }

  Batch batch(std::span<const int64_t> windows) const override {
    Batch batch;
    batch.offsets.push_back(0);
    std::vector<WindowRow> rows;
    for (int64_t window : windows) {
      rows.push_back(row(window));
      std::vector<int64_t> lengths(rows.back()[documents]);
      file_.read<int64_t>("document_tokens", rows.back()[first_document], lengths);
      for (int64_t length : lengths) batch.offsets.push_back(batch.offsets.back() + length);
    }
    batch.ids = at::empty({batch.tokens()}, at::kLong);
    batch.labels = at::full({batch.tokens()}, -1, at::kLong);
    int64_t *ids = batch.ids.data_ptr<int64_t>(), *labels = batch.labels.data_ptr<int64_t>();
    std::vector<int32_t> window_ids;
    std::vector<uint8_t> window_trained;
    int64_t at = 0;
    for (const WindowRow& window : rows) {
      window_ids.resize(window[tokens]);
      window_trained.resize(window[tokens]);
      file_.read<int32_t>("ids", window[first_token], window_ids);
      file_.read<uint8_t>("trained", window[first_token], window_trained);
      for (int64_t t = 0; t < window[tokens]; ++t, ++at) {
        ids[at] = window_ids[t];
        // A document's first token is never trained, so no label crosses a document's border.
        if (window_trained[t] && t > 0) labels[at - 1] = window_ids[t];
      }
    }
    return batch;
  }

 private:
  WindowRow row(int64_t window) const {
    if (window < 0 || window >= windows_)
      fail(Exit::internal, "{}: window {} is wanted, there are {}", path_, window, windows_);
    WindowRow row;
    file_.read<int64_t>("windows", window, row);
    return row;
  }

  /// Windows, documents and tokens follow each other without a gap.
  void check_windows() const {
    int64_t token = 0, document = 0, trained_tokens = 0, all_documents = file_.rows("document_tokens");
    constexpr int64_t block = 4096;
    for (int64_t begin = 0; begin < windows_; begin += block) {
      std::vector<int64_t> rows(std::min(block, windows_ - begin) * columns);
      file_.read<int64_t>("windows", begin, rows);
      for (size_t i = 0; i < rows.size(); i += columns) {
        const int64_t* row = &rows[i];
        if (row[first_token] != token || row[tokens] < 1 || row[tokens] > ledger_.tokens - token ||
            row[first_document] != document || row[documents] < 1 || row[documents] > all_documents - document)
          fail(Exit::bad_input, "{}: window {} contradicts the one before it", path_, begin + int64_t(i) / columns);
        std::vector<int64_t> lengths(row[documents]);
        file_.read<int64_t>("document_tokens", document, lengths);
        int64_t sum = 0;
        for (int64_t length : lengths) {
          if (length < 1 || length > row[tokens] - sum)
            fail(Exit::bad_input, "{}: a document of {} tokens in window {}", path_, length,
                 begin + int64_t(i) / columns);
          sum += length;
        }
        if (sum != row[tokens])
          fail(Exit::bad_input, "{}: window {} has {} tokens, its documents {}", path_, begin + int64_t(i) / columns,
               row[tokens], sum);
        token += row[tokens];
        document += row[documents];
        trained_tokens += row[trained];
      }
    }
    if (token != ledger_.tokens || document != all_documents || trained_tokens != ledger_.trained_tokens)
      fail(Exit::bad_input, "{}: the windows hold {} tokens ({} trained), the ledger says {} ({})", path_, token,
           trained_tokens, ledger_.tokens, ledger_.trained_tokens);
  }

  std::string path_, key_;
  Hdf5File file_;
  Ledger ledger_;
  int64_t windows_ = 0;
};

/// Appends windows to the file, a few thousand tokens at a time.
class Writer {
 public:
  explicit Writer(const std::filesystem::path& path) : file_(Hdf5File::create(path)) {
    file_.create_array<int32_t>("ids");
    file_.create_array<uint8_t>("trained");
    file_.create_array<int64_t>("document_tokens", 1, 4096);
    file_.create_array<int64_t>("windows", columns, 1024);
  }

  void add(const Packer::Window& window) {
    WindowRow row{tokens_, 0, documents_, static_cast<int64_t>(window.size()), 0};
    for (const Example& example : window) {
      int64_t length = static_cast<int64_t>(example.ids.size());
      ids_.insert(ids_.end(), example.ids.begin(), example.ids.end());
      trained_.insert(trained_.end(), example.trained.begin(), example.trained.end());
      lengths_.push_back(length);
      row[Column::tokens] += length;
      row[Column::trained] += std::count(example.trained.begin(), example.trained.end(), 1);
    }
    tokens_ += row[Column::tokens];
    documents_ += row[Column::documents];
    rows_.insert(rows_.end(), row.begin(), row.end());
    if (ids_.size() >= size_t{1} << 16) flush();
  }

  int64_t tokens() const { return tokens_; }

  void finish(const std::string& key, const Ledger& ledger) {
    flush();
    file_.write_attribute("format", format_name);
    file_.write_attribute("key", key);
    file_.write_attribute("ledger", ledger.to_json().dump());
    file_.seal();
  }

 private:
  void flush() {
    file_.append<int32_t>("ids", ids_);
    file_.append<uint8_t>("trained", trained_);
    file_.append<int64_t>("document_tokens", lengths_);
    file_.append<int64_t>("windows", rows_);
    ids_.clear(), trained_.clear(), lengths_.clear(), rows_.clear();
  }

  Hdf5File file_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> trained_;
  std::vector<int64_t> lengths_, rows_;
  int64_t tokens_ = 0, documents_ = 0;
};

void write_dataset(const std::filesystem::path& path, const std::string& key, const Stream<Chat>& rows,
                   const Tokenizer& tokenizer, const ChatTemplate& chat_template, const PackedOptions& options,
                   const DatasetProgress& progress) {
  AtomicFile file(path);
  Writer writer(file.temporary());
  Ledger ledger;
  Packer packer(options.encode.max_length, options.packing, [&](const Packer::Window& window) {
    writer.add(window);
    if (progress) progress(ledger.rows, writer.tokens());
  });
  for (Chat chat; rows(chat); chat = {})
    if (auto example = encode(tokenizer, chat_template, chat, options.encode, ledger)) packer.add(std::move(*example));
  packer.finish();
  if (writer.tokens() == 0) {
    std::string why;
    for (const auto& [reason, count] : ledger.dropped) why += fmt::format("; {}: {}", reason, count);
    fail(Exit::bad_input, "no row is left to train on: {} rows were read{}", ledger.rows, why);
  }
  writer.finish(key, ledger);
  file.commit();
}

}  // namespace

std::string dataset_key(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const PackedOptions& options,
                        const std::string& data_hash) {
  Json parts = {{"format", format_name},
                {"data", data_hash},
                {"tokenizer", tokenizer.hash()},
                {"template", chat_template.hash()},
                {"max_length", options.encode.max_length},
                {"train_on", static_cast<int>(options.encode.train_on)},
                {"truncation", static_cast<int>(options.encode.truncation)},
                {"packing", options.packing ? "best fit, random order" : "none"}};
  return sha256_hex(parts.dump());
}

std::unique_ptr<PackedDataset> build_dataset(const Stream<Chat>& rows, const Tokenizer& tokenizer,
                                             const ChatTemplate& chat_template, const PackedOptions& options,
                                             const std::string& data_hash, const DatasetProgress& progress) {
  std::string key = dataset_key(tokenizer, chat_template, options, data_hash);
  std::filesystem::path folder = cache_folder() / "datasets", path = folder / (key + ".h5");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(Exit::io, "{}: cannot create the folder: {}", folder.string(), error.message());
  FileLock lock(folder / (key + ".lock"));
  if (std::filesystem::exists(path)) {
    try {
      auto dataset = open_dataset(path);
      if (dataset->key() == key) {
        mark_used(path);
        return dataset;
      }
    } catch (const Error& damaged) {
      // The rows are at hand, so a cache that does not read is made again.
      if (damaged.exit() != Exit::bad_input) throw;
    }
  }
  write_dataset(path, key, rows, tokenizer, chat_template, options, progress);
  return open_dataset(path);
}

std::unique_ptr<PackedDataset> open_dataset(const std::filesystem::path& path) {
  return std::make_unique<CachedDataset>(path);
}

}  // namespace retort
