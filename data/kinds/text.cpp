// Plain text: one document a file, a paragraph (blank lines between) or a line.
#include <algorithm>

#include "data/dataset.h"
#include "data/text_input.h"

namespace retort {

extern const DatasetKind dataset_text;

namespace {

// A file, or the regular files of a folder in order of name.
std::vector<std::filesystem::path> files(const DatasetOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_directory(options.path, error)) return {options.path};
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(options.path, error))
    if (entry.is_regular_file()) found.push_back(entry.path());
  if (error) fail(Exit::io, "{}: cannot be listed: {}", options.path.string(), error.message());
  if (found.empty()) fail(Exit::bad_input, "{}: the folder has no files", options.path.string());
  std::sort(found.begin(), found.end());
  return found;
}

class Documents {
 public:
  Documents(std::vector<std::filesystem::path> files, std::string unit)
      : files_(std::move(files)), unit_(std::move(unit)) {}

  bool next(Row& row) {
    while (true) {
      if (!lines_) {
        if (file_ == files_.size()) return false;
        lines_ = std::make_unique<LineReader>(files_[file_]);
      }
      if (read(row)) return true;
      lines_.reset();
      ++file_;
    }
  }

 private:
  // The next document of this file; blank lines at its ends are not part of it.
  bool read(Row& row) {
    std::string document;
    size_t end = 0;  // of the last line that is not blank
    while (lines_->next(line_)) {
      bool blank = trim(line_).empty();
      if (blank && document.empty()) continue;
      if (blank && unit_ == "paragraph") break;
      if (document.empty()) row.place = lines_->place();
      document += line_;
      if (!blank) end = document.size();
      if (unit_ == "line") break;
      document += '\n';
      if (document.size() > kMaxRecordBytes)
        fail(Exit::bad_input, "{}: the document is longer than {} bytes; take `options: {{unit: paragraph}}` or `line`",
             row.place, kMaxRecordBytes);
    }
    document.resize(end);
    if (document.empty()) return false;
    row.fields = {{"text", std::move(document)}, {"file", files_[file_].filename().string()}};
    return true;
  }

  std::vector<std::filesystem::path> files_;
  std::string unit_, line_;
  size_t file_ = 0;
  std::unique_ptr<LineReader> lines_;
};

Stream<Row> open(const DatasetOptions& options) {
  auto documents = std::make_shared<Documents>(files(options), dataset_option(options, dataset_text, "unit"));
  return [documents](Row& row) { return documents->next(row); };
}

}  // namespace

const DatasetKind dataset_text{
    .summary = "plain text, a file or a folder of files",
    .fields = "`text`, and `file`, the file's name",
    .options = {{"unit",
                 "paragraph",
                 "what one row is; paragraphs are parted by blank lines",
                 false,
                 {"file", "paragraph", "line"}}},
    .files = files,
    .open = open,
};

}  // namespace retort
