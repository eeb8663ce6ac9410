#include "trainer/tensorboard.h"

#include <array>
#include <bit>
#include <cstring>

namespace retort {
namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c >> 1) ^ ((c & 1) ? 0x82f63b78u : 0u);
    table[i] = c;
  }
  return table;
}();

static_assert(std::endian::native == std::endian::little, "TFRecord and protobuf numbers are written as they lie");

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// Protobuf wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
void put_key(std::string& out, int field, int wire_type) {
  put_varint(out, static_cast<uint64_t>(field << 3 | wire_type));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, 2);
  put_varint(out, bytes.size());
  out += bytes;
}

uint32_t masked(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

// length, its checksum, data, its checksum
std::string record(std::string_view data) {
  std::string length, out;
  put<uint64_t>(length, data.size());
  out = length;
  put(out, masked(length));
  out += data;
  put(out, masked(data));
  return out;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (unsigned char byte : bytes) crc = crc_table[(crc ^ byte) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::string tensorboard_header(double wall_time) {
  std::string event;  // Event { double wall_time = 1; string file_version = 3; }
  put_key(event, 1, 1);
  put(event, wall_time);
  put_bytes(event, 3, "brain.Event:2");
  return record(event);
}

std::string tensorboard_scalars(double wall_time, int64_t step, const std::map<std::string, float>& scalars) {
  std::string event, summary;  // Event { double wall_time = 1; int64 step = 2; Summary summary = 5; }
  for (const auto& [tag, value] : scalars) {
    std::string entry;  // Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; }
    put_bytes(entry, 1, tag);
    put_key(entry, 2, 5);
    put(entry, value);
    put_bytes(summary, 1, entry);
  }
  put_key(event, 1, 1);
  put(event, wall_time);
  put_key(event, 2, 0);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  return record(event);
}

}  // namespace retort
