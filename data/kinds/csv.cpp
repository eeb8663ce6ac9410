// Comma-separated values by RFC 4180: a header row, quotes, line breaks within quotes; ragged rows are errors.
#include <set>

#include "data/dataset.h"
#include "data/text_input.h"

namespace retort {

extern const DatasetKind dataset_csv;

namespace {

constexpr size_t kMaxColumns = 4096;

std::vector<std::filesystem::path> files(const DatasetOptions& options) { return {options.path}; }

// One record at a time; a quoted line break is read as "\n".
class CsvReader {
 public:
  CsvReader(const std::filesystem::path& path, char delimiter) : lines_(path), delimiter_(delimiter) {}

  // The cells of the next record that is not blank; place() is where it starts.
  bool next(std::vector<std::string>& cells) {
    do {
      if (!lines_.next(line_)) return false;
    } while (line_.empty());
    place_ = lines_.place();
    cells.assign(1, "");
    size_t at = 0, size = 0;
    while (true) {
      at = at < line_.size() && line_[at] == '"' ? quoted(cells.back(), at + 1, size) : plain(cells.back(), at);
      if (at == line_.size()) return true;
      ++at;  // the delimiter
      cells.emplace_back();
      if (cells.size() > kMaxColumns) fail(Exit::bad_input, "{}: more than {} cells in a row", place_, kMaxColumns);
    }
  }
  const std::string& place() const { return place_; }

 private:
  // Both return the offset of the delimiter that ends the cell, or the line's size.
  size_t plain(std::string& cell, size_t at) {
    size_t end = std::min(line_.find(delimiter_, at), line_.size());
    cell.assign(line_, at, end - at);
    if (cell.find('"') != std::string::npos)
      fail(Exit::bad_input,
           "{}: a quote within a cell that does not start with one: {}; quote the cell and double the quote",
           lines_.place(), cell.substr(0, 60));
    return end;
  }

  size_t quoted(std::string& cell, size_t at, size_t& size) {
    while (true) {
      size_t quote = line_.find('"', at);
      cell.append(line_, at, std::min(quote, line_.size()) - at);
      if (quote == std::string::npos) {
        size += line_.size() + 1;
        if (size > kMaxRecordBytes)
          fail(Exit::bad_input, "{}: the row is longer than {} bytes; is a closing quote missing?", place_,
               kMaxRecordBytes);
        cell += '\n';
        if (!lines_.next(line_))
          fail(Exit::bad_input, "{}: a quoted cell is not closed before the end of the file", place_);
        at = 0;
      } else if (quote + 1 < line_.size() && line_[quote + 1] == '"') {
        cell += '"';
        at = quote + 2;
      } else if (quote + 1 == line_.size() || line_[quote + 1] == delimiter_) {
        return quote + 1;
      } else {
        fail(Exit::bad_input, "{}: text after a closing quote: {}; double a quote that belongs to the cell",
             lines_.place(), line_.substr(quote, 20));
      }
    }
  }

  LineReader lines_;
  char delimiter_;
  std::string line_, place_;
};

char delimiter_of(const DatasetOptions& options) {
  std::string delimiter = dataset_option(options, dataset_csv, "delimiter");
  if (delimiter == "tab") return '\t';
  if (delimiter.size() != 1 || delimiter == "\"")
    fail(Exit::usage, "{}: option `delimiter`: found \"{}\"; one character (not a quote), or `tab`",
         options.path.string(), delimiter);
  return delimiter[0];
}

Stream<Row> open(const DatasetOptions& options) {
  auto reader = std::make_shared<CsvReader>(options.path, delimiter_of(options));
  std::vector<std::string> names;
  if (!reader->next(names))
    fail(Exit::bad_input, "{}: the file is empty; a header row is needed", options.path.string());
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.empty()) fail(Exit::bad_input, "{}: the header row has an empty name", reader->place());
    if (!seen.insert(name).second)
      fail(Exit::bad_input, "{}: the header row names \"{}\" twice", reader->place(), name);
  }
  return [reader, names, cells = std::vector<std::string>()](Row& row) mutable {
    if (!reader->next(cells)) return false;
    row.place = reader->place();
    if (cells.size() != names.size())
      fail(Exit::bad_input, "{}: the row has {} cells, the header has {}", row.place, cells.size(), names.size());
    row.fields = Json::object();
    for (size_t i = 0; i < names.size(); ++i) row.fields[names[i]] = std::move(cells[i]);
    return true;
  };
}

}  // namespace

const DatasetKind dataset_csv{
    .summary = "comma-separated values (RFC 4180) with a header row",
    .fields = "the header's names; every value is a text",
    .options = {{"delimiter", ",", "the character between cells, or `tab`"}},
    .files = files,
    .open = open,
};

}  // namespace retort
