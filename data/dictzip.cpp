#include "data/dictzip.h"

#include <zlib.h>

#include <algorithm>

#include "core/error.h"

namespace retort {
namespace {

// RFC 1952: flags of the header.
enum { kHeaderCrc = 2, kExtra = 4, kName = 8, kComment = 16 };

uint64_t little_endian(std::span<const uint8_t> bytes, size_t at, int count) {
  uint64_t value = 0;
  for (int i = count; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

}  // namespace

DictText::DictText(const std::filesystem::path& path) : file_(MappedFile::open(path)), name_(path.string()) {
  auto bytes = file_->bytes();
  if (bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B) {
    read_header();
    check_chunks();
  } else {
    size_ = bytes.size();
  }
}

void DictText::read_header() {
  auto bytes = file_->bytes();
  auto need = [&](size_t end, const char* what) {
    if (end > bytes.size())
      fail(Exit::bad_input, "{}: offset {}: the file ends within the dictzip header's {}", name_, bytes.size(), what);
  };
  need(12, "fixed part");
  uint8_t flags = bytes[3];
  if (bytes[2] != Z_DEFLATED)
    fail(Exit::bad_input, "{}: offset 2: compression method {}, only 8 (deflate) is known", name_, bytes[2]);
  if (!(flags & kExtra))
    fail(Exit::bad_input, "{}: a gzip file without dictzip's chunk table; unpack it, or pack it with `dictzip`", name_);
  size_t extra_end = 12 + little_endian(bytes, 10, 2);
  need(extra_end, "extra field");
  size_t table = 0, chunks = 0;
  for (size_t at = 12; at + 4 <= extra_end;) {
    size_t length = little_endian(bytes, at + 2, 2);
    if (at + 4 + length > extra_end)
      fail(Exit::bad_input, "{}: offset {}: a subfield leaves the extra field", name_, at);
    if (bytes[at] == 'R' && bytes[at + 1] == 'A') {
      if (length < 6)
        fail(Exit::bad_input, "{}: offset {}: the chunk table has {} bytes, at least 6 are needed", name_, at, length);
      uint64_t version = little_endian(bytes, at + 4, 2);
      if (version != 1)
        fail(Exit::bad_input, "{}: offset {}: dictzip version {}, only 1 is known", name_, at + 4, version);
      chunk_bytes_ = little_endian(bytes, at + 6, 2);
      chunks = little_endian(bytes, at + 8, 2);
      table = at + 10;
      if (chunk_bytes_ == 0 || length < 6 + 2 * chunks)
        fail(Exit::bad_input, "{}: offset {}: {} chunks of {} bytes do not fit a table of {} bytes", name_, at, chunks,
             chunk_bytes_, length);
    }
    at += 4 + length;
  }
  if (table == 0)
    fail(Exit::bad_input, "{}: the extra field has no dictzip chunk table; pack the file with `dictzip`", name_);

  size_t at = extra_end;
  for (int text : {kName, kComment}) {
    if (!(flags & text)) continue;
    while (at < bytes.size() && bytes[at] != 0) ++at;
    ++at;
  }
  if (flags & kHeaderCrc) at += 2;
  for (size_t i = 0; i <= chunks; ++i) {
    starts_.push_back(at);
    if (i < chunks) at += little_endian(bytes, table + 2 * i, 2);
  }
  if (at + 8 > bytes.size())
    fail(Exit::bad_input, "{}: the file has {} bytes, its chunk table needs {}: it is cut short", name_, bytes.size(),
         at + 8);
}

void DictText::check_chunks() {
  auto bytes = file_->bytes();
  size_t chunks = starts_.size() - 1;
  uint32_t crc = crc32(0, nullptr, 0);
  for (size_t i = 0; i < chunks; ++i) {
    inflate_chunk(i);
    if (i + 1 < chunks && chunk_.size() != chunk_bytes_)
      fail(Exit::bad_input, "{}: offset {}: chunk {} holds {} bytes, {} are wanted", name_, starts_[i], i,
           chunk_.size(), chunk_bytes_);
    size_ += chunk_.size();
    crc = crc32(crc, reinterpret_cast<const Bytef*>(chunk_.data()), chunk_.size());
  }
  // The trailer follows the end-of-stream block, which dictzip leaves out of the table.
  size_t trailer = bytes.size() - 8;
  uint64_t wanted_crc = little_endian(bytes, trailer, 4), wanted_size = little_endian(bytes, trailer + 4, 4);
  if (wanted_size != (size_ & 0xFFFFFFFF))
    fail(Exit::bad_input, "{}: offset {}: the trailer says {} bytes, the chunks hold {}", name_, trailer + 4,
         wanted_size, size_);
  if (wanted_crc != crc)
    fail(Exit::bad_input, "{}: offset {}: CRC-32 {:08x} in the trailer, {:08x} of the text: the file is damaged", name_,
         trailer, wanted_crc, crc);
}

void DictText::inflate_chunk(size_t chunk) {
  if (inflated_ == chunk) return;
  inflated_ = SIZE_MAX;
  auto bytes = file_->bytes().subspan(starts_[chunk], starts_[chunk + 1] - starts_[chunk]);
  chunk_.resize(chunk_bytes_);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) fail(Exit::internal, "{}: zlib cannot start", name_);
  stream.next_in = const_cast<Bytef*>(bytes.data());
  stream.avail_in = bytes.size();
  stream.next_out = reinterpret_cast<Bytef*>(chunk_.data());
  stream.avail_out = chunk_.size();
  int result = inflate(&stream, Z_SYNC_FLUSH);
  size_t produced = chunk_.size() - stream.avail_out;
  std::string message = stream.msg ? stream.msg : "the data end early";
  inflateEnd(&stream);
  if ((result != Z_OK && result != Z_STREAM_END) || stream.avail_in != 0 || produced == 0)
    fail(Exit::bad_input, "{}: offset {}: chunk {} cannot be inflated: {}", name_, starts_[chunk], chunk, message);
  chunk_.resize(produced);
  inflated_ = chunk;
}

std::string DictText::read(uint64_t offset, uint64_t size) {
  if (offset > size_ || size > size_ - offset)
    fail(Exit::bad_input, "{}: bytes {} to {} are asked for, the text has {}", name_, offset, offset + size, size_);
  if (chunk_bytes_ == 0) return std::string(reinterpret_cast<const char*>(file_->bytes().data()) + offset, size);
  std::string text;
  text.reserve(size);
  while (size > 0) {
    inflate_chunk(offset / chunk_bytes_);
    size_t begin = offset % chunk_bytes_, count = std::min<uint64_t>(size, chunk_.size() - begin);
    text.append(chunk_, begin, count);
    offset += count;
    size -= count;
  }
  return text;
}

}  // namespace retort
