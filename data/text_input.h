// Text files, a line at a time: bounded, valid UTF-8, every error with file and line.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

/// The longest record (line, paragraph, CSV row, dictionary entry) that a data set may hold.
constexpr size_t kMaxRecordBytes = 16 << 20;

/// Reads lines; memory is one line. A byte-order mark at the start and "\r" before a line end are dropped.
class LineReader {
 public:
  /// Error(io) when the file cannot be opened.
  explicit LineReader(const std::filesystem::path& path);
  /// False at the end. Error(bad_input) on a line longer than kMaxRecordBytes or on invalid UTF-8.
  bool next(std::string& line);
  /// The number of the line that next() gave last, from 1.
  int64_t number() const { return number_; }
  /// "file:line", for messages.
  std::string place() const;

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  bool fill();
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t number_ = 0;
};

/// The offset of the first byte that is not part of a well-formed UTF-8 sequence (RFC 3629).
std::optional<size_t> invalid_utf8(std::string_view text);
/// Error(bad_input) with place and offset when the text is not UTF-8.
void check_utf8(std::string_view text, const std::string& place);
/// Unicode characters in valid UTF-8.
size_t utf8_length(std::string_view text);
/// At most `characters` characters, ended at the last white space where that keeps at least half of them.
std::string cut_text(const std::string& text, size_t characters);
/// Without white space at both ends.
std::string_view trim(std::string_view text);

}  // namespace retort
