#include "core/hmac.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <memory>

#include "core/error.h"

namespace retort {
namespace {

constexpr size_t digest_size = 32;

using Context = std::unique_ptr<EVP_MAC_CTX, void (*)(EVP_MAC_CTX*)>;

void require(bool worked) {
  if (!worked) fail(Exit::internal, "OpenSSL cannot compute an HMAC");
}

}  // namespace

HmacSha256::HmacSha256(std::string_view key) {
  const std::unique_ptr<EVP_MAC, void (*)(EVP_MAC*)> algorithm(EVP_MAC_fetch(nullptr, "HMAC", nullptr), EVP_MAC_free);
  Context context(EVP_MAC_CTX_new(algorithm.get()), EVP_MAC_CTX_free);
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                   OSSL_PARAM_construct_end()};
  // OpenSSL takes a null key for "the key as before", so an empty one needs a place.
  const auto* bytes = reinterpret_cast<const uint8_t*>(key.empty() ? "" : key.data());
  require(context && EVP_MAC_init(context.get(), bytes, key.size(), parameters) == 1);
  keyed_ = context.release();
}

HmacSha256::~HmacSha256() { EVP_MAC_CTX_free(static_cast<EVP_MAC_CTX*>(keyed_)); }

std::string HmacSha256::operator()(std::string_view bytes) const {
  const Context context(EVP_MAC_CTX_dup(static_cast<const EVP_MAC_CTX*>(keyed_)), EVP_MAC_CTX_free);
  std::string digest(digest_size, 0);
  size_t size = 0;
  require(context && EVP_MAC_update(context.get(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()) == 1 &&
          EVP_MAC_final(context.get(), reinterpret_cast<uint8_t*>(digest.data()), &size, digest.size()) == 1);
  return digest;
}

}  // namespace retort
