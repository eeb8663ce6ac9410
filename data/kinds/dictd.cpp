// Dictionaries of the DICT project: an index of headwords and a text, as dictd serves them and Debian's dict-* packages
// ship them. A row is an entry; headwords that share one are listed together.
#include <algorithm>

#include "data/dataset.h"
#include "data/dictzip.h"
#include "data/text_input.h"

namespace retort {

extern const DatasetKind dataset_dictd;

namespace {

namespace fs = std::filesystem;

// dictd's numbers: base 64, most significant digit first.
uint64_t base64_number(std::string_view digits, const std::string& place) {
  static const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint64_t value = 0;
  if (digits.empty() || digits.size() > 10)
    fail(Exit::bad_input, "{}: a number of {} base-64 digits, 1 to 10 are allowed", place, digits.size());
  for (char digit : digits) {
    size_t d = alphabet.find(digit);
    if (d == std::string_view::npos) fail(Exit::bad_input, "{}: \"{}\" is not a base-64 number", place, digits);
    value = value << 6 | d;
  }
  return value;
}

bool ends_with_any(const std::string& name, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return name.ends_with(end); });
}

// The database's text: `path`, or the one .dict or .dict.dz file in it or in its usr/share/dictd.
fs::path text_file(const DatasetOptions& options) {
  fs::path folder = options.path;
  std::error_code error;
  if (!fs::is_directory(folder, error)) return folder;
  if (fs::is_directory(folder / "usr/share/dictd", error)) folder /= "usr/share/dictd";
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (ends_with_any(entry.path().filename().string(), {".dict", ".dict.dz"})) found.push_back(entry.path());
  if (found.size() != 1)
    fail(Exit::bad_input, "{}: {} files end in .dict or .dict.dz, exactly one is needed; give the file's path",
         folder.string(), found.size());
  return found.front();
}

fs::path index_file(const DatasetOptions& options) {
  if (std::string given = dataset_option(options, dataset_dictd, "index"); !given.empty()) return given;
  fs::path text = text_file(options);
  std::string stem = text.filename().string();
  for (const char* end : {".dz", ".dict"})
    if (stem.ends_with(end)) stem.resize(stem.size() - std::string_view(end).size());
  fs::path index = text.parent_path() / (stem + ".index");
  if (!fs::exists(index))
    fail(Exit::bad_input, "{}: its index {} is not there; give it as `options: {{index: …}}`", text.string(),
         index.string());
  return index;
}

std::vector<fs::path> files(const DatasetOptions& options) { return {text_file(options), index_file(options)}; }

// Where an entry's text lies, and which line of the index names it.
struct IndexLine {
  uint64_t offset, size, line_start;
};

// The index in memory: 24 bytes a headword; the headwords stay in the mapped file.
class Index {
 public:
  Index(const fs::path& path, uint64_t text_size) : file_(MappedFile::open(path)) {
    auto bytes = file_->bytes();
    text_ = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    int64_t number = 0;
    for (size_t start = 0; start < text_.size();) {
      std::string place = fmt::format("{}:{}", path.string(), ++number);
      size_t end = std::min(text_.find('\n', start), text_.size());
      std::string_view line = text_.substr(start, end - start);
      check_utf8(line, place);
      size_t first = line.find('\t'), second = first == line.npos ? line.npos : line.find('\t', first + 1);
      if (second == line.npos) fail(Exit::bad_input, "{}: expected headword, offset and size with tabs between", place);
      size_t third =
          std::min(line.find('\t', second + 1), line.size());  // dictfmt may add the headword as it was written
      uint64_t offset = base64_number(line.substr(first + 1, second - first - 1), place);
      uint64_t size = base64_number(line.substr(second + 1, third - second - 1), place);
      if (offset > text_size || size > text_size - offset)
        fail(Exit::bad_input, "{}: the entry lies at {} with {} bytes, the text has {}", place, offset, size,
             text_size);
      if (size > kMaxRecordBytes)
        fail(Exit::bad_input, "{}: the entry has {} bytes, at most {} are allowed", place, size, kMaxRecordBytes);
      if (!line.starts_with("00-database-")) lines_.push_back({offset, size, start});
      start = end + 1;
    }
    std::sort(lines_.begin(), lines_.end(), [](const IndexLine& a, const IndexLine& b) {
      return std::tie(a.offset, a.size, a.line_start) < std::tie(b.offset, b.size, b.line_start);
    });
  }

  const std::vector<IndexLine>& lines() const { return lines_; }
  std::string headword(const IndexLine& line) const {
    return std::string(text_.substr(line.line_start, text_.find('\t', line.line_start) - line.line_start));
  }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::string_view text_;
  std::vector<IndexLine> lines_;
};

// Without white space at the ends, and with one space for each run of it.
std::string one_spaced(std::string_view text) {
  std::string result;
  for (char c : trim(text)) {
    bool space = c == ' ' || c == '\t' || c == '\n';
    if (!space || result.back() != ' ') result += space ? ' ' : c;
  }
  return result;
}

// A headword for comparing: the index has lower case only.
std::string folded(std::string_view text) {
  std::string result = one_spaced(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

// Takes the lines at the start that repeat the entry's headwords, in the case they are written in; a long one may be
// wrapped over two lines. What stays is the definition without common indentation.
std::vector<std::string> split_headwords(std::string& text, const std::vector<std::string>& indexed) {
  auto is_indexed = [&](const std::string& word) {
    return std::any_of(indexed.begin(), indexed.end(), [&](const std::string& other) { return folded(other) == word; });
  };
  std::vector<std::string> headwords;
  size_t at = std::min(text.find_first_not_of('\n'), text.size());
  while (at < text.size() && text[at] != ' ' && text[at] != '\t' && text[at] != '\n') {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string line = one_spaced(std::string_view(text).substr(at, end - at));
    if (!is_indexed(folded(line))) {
      end = std::min(text.find('\n', std::min(end + 1, text.size())), text.size());
      line = one_spaced(std::string_view(text).substr(at, end - at));
      if (!is_indexed(folded(line))) break;
    }
    headwords.push_back(line);
    at = end + 1;
  }
  text.erase(0, std::min(at, text.size()));
  return headwords;
}

// Without the white space that every line starts with, blank lines at the ends and white space at line ends.
std::string unindented(std::string_view text) {
  std::vector<std::string_view> lines;
  size_t indent = std::string_view::npos;
  for (size_t at = 0; at <= text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    if (!line.empty()) indent = std::min(indent, line.find_first_not_of(' '));
    lines.push_back(line);
    at = end + 1;
  }
  std::string result;
  for (std::string_view line : lines) {
    if (!line.empty()) result += line.substr(indent);
    result += '\n';
  }
  size_t first = result.find_first_not_of('\n');
  return first == std::string::npos ? "" : result.substr(first, result.find_last_not_of('\n') - first + 1);
}

Stream<Row> open(const DatasetOptions& options) {
  auto text = std::make_shared<DictText>(text_file(options));
  auto index = std::make_shared<Index>(index_file(options), text->size());
  return [text, index, name = text_file(options).string(), at = size_t{0}, number = size_t{0}](Row& row) mutable {
    const std::vector<IndexLine>& lines = index->lines();
    if (at == lines.size()) return false;
    const IndexLine& entry = lines[at];
    std::vector<std::string> indexed;
    for (; at < lines.size() && lines[at].offset == entry.offset && lines[at].size == entry.size; ++at)
      indexed.push_back(index->headword(lines[at]));
    // By its number: a headword may be personal data, and a place is written into the audit of guards.
    row.place = fmt::format("{}: entry {} at byte {}", name, ++number, entry.offset);
    std::string definition = text->read(entry.offset, entry.size);
    check_utf8(definition, fmt::format("{}: entry \"{}\"", name, indexed.front()));
    std::vector<std::string> headwords = split_headwords(definition, indexed);
    for (const std::string& word : indexed)
      if (std::none_of(headwords.begin(), headwords.end(),
                       [&](const std::string& w) { return folded(w) == folded(word); }))
        headwords.push_back(word);
    row.fields = {{"headword", headwords.front()}, {"headwords", headwords}, {"definition", unindented(definition)}};
    return true;
  };
}

}  // namespace

const DatasetKind dataset_dictd{
    .summary = "a dictionary of the DICT project: .dict or .dict.dz with its .index, or the folder that holds them",
    .fields = "`headword`, `headwords` (all that share the entry), `definition` (without the headword lines)",
    .options = {{"index", "", "the index, when it does not lie beside the text", true}},
    .files = files,
    .open = open,
};

}  // namespace retort
