// SHA-256 (OpenSSL) for identity, XXH3 for speed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace retort {

/// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::span<const uint8_t> bytes);
  void update(std::string_view bytes);
  /// 64 lower-case hexadecimal digits; the object is spent afterwards.
  std::string hex();

 private:
  void* context_;
};

std::string sha256_hex(std::string_view bytes);
/// HMAC-SHA-256 (RFC 2104): 32 bytes, not hexadecimal.
std::string hmac_sha256(std::string_view key, std::string_view bytes);
std::string sha256_file(const std::filesystem::path& path);
/// 64-bit XXH3; not for anything an attacker may choose.
uint64_t xxh3(std::string_view bytes, uint64_t seed = 0);

}  // namespace retort
