#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "core/error.h"
#include "core/http.h"
#include "core/log.h"
#include "core/signals.h"

namespace retort {
namespace {

constexpr int kAttempts = 4;

size_t ignore(char*, size_t size, size_t count, void*) { return size * count; }

/// Scheme, host and port. The rest of a webhook's URL, and a name before the host, may be its secret.
std::string shown_url(const std::string& url) {
  const size_t host = url.find("://") == url.npos ? 0 : url.find("://") + 3;
  const std::string authority = url.substr(host, url.find_first_of("/?#", host) - host);
  const size_t at = authority.rfind('@');
  return url.substr(0, host) + (at == authority.npos ? authority : authority.substr(at + 1));
}

/// Empty when it was taken, else why not; `again`: another attempt may do.
std::string post_once(const std::string& url, const std::string& json, bool& again) {
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) fail(Exit::internal, "libcurl does not start");
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
      curl_slist_append(nullptr, "Content-Type: application/json"), curl_slist_free_all);
  char message[CURL_ERROR_SIZE] = "";
  auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_USERAGENT, "retort");
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_POSTFIELDS, json.c_str());
  set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(json.size()));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, 30L);
  set(CURLOPT_TIMEOUT, 60L);
  set(CURLOPT_ERRORBUFFER, message);
  set(CURLOPT_WRITEFUNCTION, &ignore);
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    if (const char* bundle = std::getenv(name)) {
      set(CURLOPT_CAINFO, bundle);
      break;
    }
  }
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) {
    again = code != CURLE_URL_MALFORMAT && code != CURLE_PEER_FAILED_VERIFICATION;
    return *message ? message : curl_easy_strerror(code);
  }
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status / 100 == 2) return "";
  again = status == 408 || status == 429 || status / 100 == 5;
  return fmt::format("status {}", status);
}

}  // namespace

void http_post(const std::string& url, const std::string& json, double retry_seconds) {
  const std::string shown = shown_url(url);
  if (!url.starts_with("https://") && !(url.starts_with("http://") && is_loopback_url(url)))
    fail(Exit::usage, "{}: what is sent would be readable on its way; allowed: https", shown);
  for (int attempt = 1;; ++attempt) {
    bool again = false;
    const std::string reason = post_once(url, json, again);
    if (reason.empty()) return;
    if (!again || attempt == kAttempts)
      fail(Exit::unavailable, "{}: not delivered ({} attempts): {}", shown, attempt, reason);
    log::warn("{}: {}; trying again", shown, reason);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(retry_seconds * (1 << attempt));
    while (std::chrono::steady_clock::now() < end) {
      if (stop_signal()) fail(Exit::retry, "{}: stopped by a signal", shown);
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min<int64_t>(100, 1 + int64_t(retry_seconds * 1000))));
    }
  }
}

}  // namespace retort
