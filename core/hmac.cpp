#include "core/hmac.h"

#include <openssl/evp.h>

#include <memory>

#include "core/error.h"

namespace retort {
namespace {

constexpr size_t block = 64, digest_size = 32;

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

void require(bool worked) {
  if (!worked) fail(Exit::internal, "OpenSSL cannot compute an HMAC");
}

EVP_MD_CTX* begun_with(const std::string& pad) {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  require(context && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1 &&
          EVP_DigestUpdate(context, pad.data(), pad.size()) == 1);
  return context;
}

/// SHA-256 of what `begun` has seen and `bytes`.
void finish(const EVP_MD_CTX* begun, std::string_view bytes, char* digest) {
  struct Free {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    ~Free() { EVP_MD_CTX_free(context); }
  };
  thread_local const Free own;
  require(own.context && EVP_MD_CTX_copy_ex(own.context, begun) == 1 &&
          EVP_DigestUpdate(own.context, bytes.data(), bytes.size()) == 1 &&
          EVP_DigestFinal_ex(own.context, reinterpret_cast<uint8_t*>(digest), nullptr) == 1);
}

}  // namespace

HmacSha256::HmacSha256(std::string_view key) {
  std::string padded(key);
  if (key.size() > block) {
    padded.assign(digest_size, 0);
    const auto whole = std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)>(begun_with(""), EVP_MD_CTX_free);
    finish(whole.get(), key, padded.data());
  }
  padded.resize(block, 0);
  std::string inner = padded, outer = padded;
  for (size_t i = 0; i < block; ++i) {
    inner[i] = static_cast<char>(padded[i] ^ 0x36);
    outer[i] = static_cast<char>(padded[i] ^ 0x5c);
  }
  inner_ = begun_with(inner);
  outer_ = begun_with(outer);
}

HmacSha256::~HmacSha256() {
  EVP_MD_CTX_free(context_of(inner_));
  EVP_MD_CTX_free(context_of(outer_));
}

std::string HmacSha256::operator()(std::string_view bytes) const {
  std::string digest(digest_size, 0);
  finish(context_of(inner_), bytes, digest.data());
  finish(context_of(outer_), std::string(digest), digest.data());
  return digest;
}

}  // namespace retort
