#include "data/text_input.h"

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace retort {

LineReader::LineReader(const std::filesystem::path& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
  if (!file_) fail(Exit::io, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  if (std::filesystem::is_directory(path)) fail(Exit::bad_input, "{}: is a folder, a file is needed", path.string());
  buffer_.resize(1 << 16);
  if (fill() && end_ >= 3 && std::memcmp(buffer_.data(), "\xEF\xBB\xBF", 3) == 0) begin_ = 3;
}

bool LineReader::fill() {
  begin_ = 0;
  end_ = std::fread(buffer_.data(), 1, buffer_.size(), file_.get());
  if (end_ == 0 && std::ferror(file_.get()))
    fail(Exit::io, "{}: cannot be read: {}", path_.string(), std::strerror(errno));
  return end_ > 0;
}

bool LineReader::next(std::string& line) {
  line.clear();
  if (begin_ == end_ && !fill()) return false;
  ++number_;
  while (true) {
    const char* start = buffer_.data() + begin_;
    const char* newline = static_cast<const char*>(std::memchr(start, '\n', end_ - begin_));
    size_t count = newline ? newline - start : end_ - begin_;
    if (line.size() + count > kMaxRecordBytes)
      fail(Exit::bad_input, "{}: the line is longer than {} bytes", place(), kMaxRecordBytes);
    line.append(start, count);
    begin_ += count + (newline != nullptr);
    if (newline || (begin_ == end_ && !fill())) break;
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  check_utf8(line, place());
  return true;
}

std::string LineReader::place() const { return fmt::format("{}:{}", path_.string(), number_); }

std::optional<size_t> invalid_utf8(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    unsigned char lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                    : lead >= 0xE0 && lead <= 0xEF ? 3
                    : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                   : 0;
    if (length == 0 || i + length > text.size()) return i;
    // The second byte's range shuts out overlong forms, surrogates and what lies past U+10FFFF.
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (byte(i + 1) < low || byte(i + 1) > high) return i;
    for (size_t k = 2; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    i += length;
  }
  return std::nullopt;
}

void check_utf8(std::string_view text, const std::string& place) {
  if (auto offset = invalid_utf8(text))
    fail(Exit::bad_input, "{}: byte {} (0x{:02X}) is not UTF-8; convert the file, for instance with iconv", place,
         *offset + 1, static_cast<unsigned char>(text[*offset]));
}

size_t utf8_length(std::string_view text) {
  size_t count = 0;
  for (char c : text) count += (c & 0xC0) != 0x80;
  return count;
}

std::string cut_text(const std::string& text, size_t characters) {
  size_t end = 0, count = 0;
  while (end < text.size()) {
    if ((text[end] & 0xC0) != 0x80 && count++ == characters) break;
    ++end;
  }
  if (end == text.size()) return text;
  size_t space = text.find_last_of(" \t\n", end);
  if (space != std::string::npos && space >= end / 2) end = space;
  return text.substr(0, end);
}

std::string_view trim(std::string_view text) {
  const char* white = " \t\r\n\f\v";
  size_t first = text.find_first_not_of(white);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(white) - first + 1);
}

}  // namespace retort
