#include "core/http.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"
#include "core/signals.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr int kAttempts = 6;  // without a byte of progress between them
constexpr int kRedirects = 10;
constexpr double kLongestWait = 120;  // seconds; a server that asks for more is not waited for

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// scheme://host:port, as credentials are bound to it; empty when the URL cannot be parsed.
struct Url {
  std::string scheme, host, port;
  bool operator==(const Url&) const = default;
};

Url parse_url(const std::string& text) {
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) return {};
  auto part = [&](CURLUPart which, unsigned flags = 0) {
    char* value = nullptr;
    if (curl_url_get(url.get(), which, &value, flags) != CURLUE_OK) return std::string();
    std::string result = lower(value);
    curl_free(value);
    return result;
  };
  return {part(CURLUPART_SCHEME), part(CURLUPART_HOST), part(CURLUPART_PORT, CURLU_DEFAULT_PORT)};
}

bool is_loopback(const Url& url) {
  return url.host == "localhost" || url.host == "[::1]" || url.host.starts_with("127.");
}

void check_url(const std::string& text, const HttpRequest& request) {
  const Url url = parse_url(text);
  if (url.scheme.empty()) fail(Exit::usage, "{}: not a URL: {}", request.shown, text);
  if (url.scheme == "https" || (url.scheme == "http" && (is_loopback(url) || !request.sha256.empty()))) return;
  if (url.scheme == "http") {
    fail(Exit::unavailable, "{}: leads to plain http on {}; give the sha256, so that it cannot be changed on the way",
         request.shown, url.host);
  }
  fail(Exit::unavailable, "{}: leads to {}://, which is not fetched; allowed: https", request.shown, url.scheme);
}

// What one attempt came to.
struct Outcome {
  enum { done, again, stop } what;
  std::string reason;
  double wait = 0;  ///< the server's own wish in seconds
};

class Download {
 public:
  Download(const HttpRequest& request, const fs::path& file, Progress& progress)
      : request_(request), file_(file), note_(file.string() + ".json"), progress_(progress) {
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    curl_.reset(curl_easy_init());
    if (started != CURLE_OK || !curl_) fail(Exit::internal, "libcurl does not start");
    fd_ = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(Exit::io, "{}: cannot create: {}", file_.string(), std::strerror(errno));
    continue_earlier();
  }
  ~Download() { close(fd_); }
  Download(const Download&) = delete;
  Download& operator=(const Download&) = delete;

  HttpResult run() {
    std::minstd_rand jitter(std::random_device{}());
    uint64_t furthest = position_;
    for (int failed = 0;;) {
      const Outcome outcome = attempt();
      if (outcome.what == Outcome::done) break;
      if (position_ > furthest) failed = 0;
      furthest = std::max(furthest, position_);
      const std::string reason = fmt::format("{}: {}", request_.shown, outcome.reason);
      if (outcome.what == Outcome::stop) fail(Exit::unavailable, "{}", reason);
      if (++failed == kAttempts) {
        fail(Exit::unavailable, "{} ({} attempts); what was fetched is kept, a later attempt continues it", reason,
             failed);
      }
      if (outcome.wait > kLongestWait) {
        fail(Exit::unavailable, "{}; the server asks to wait {:.0f} s, try again then", reason, outcome.wait);
      }
      const double spread = std::uniform_real_distribution<>(0.75, 1.25)(jitter);
      const double own = std::min(60.0, request_.retry_seconds * static_cast<double>(1 << (failed - 1)) * spread);
      const double wait = std::max(outcome.wait, own);
      log::warn("{}; again in {:.1f} s", reason, wait);
      sleep(wait);
    }
    return check();
  }

 private:
  // The bytes of a broken attempt are worth something only with a version to hold the server to.
  void continue_earlier() {
    struct stat info {};
    if (fstat(fd_, &info) != 0 || info.st_size == 0) return;
    std::error_code ignored;
    if (fs::exists(note_, ignored)) {
      try {
        const Json note = read_json(note_);
        if (json_get<std::string>(note, "url", note_.string()) == request_.url) {
          version_ = json_get<std::string>(note, "version", note_.string());
        }
      } catch (const Error& error) {
        log::warn("{}; starting over", error.what());  // the note of a killed process
      }
    }
    if (version_.empty()) return start_over();
    hash_.update(MappedFile::open(file_)->bytes());
    position_ = static_cast<uint64_t>(info.st_size);
    resumed_ = true;
  }

  void start_over() {
    if (ftruncate(fd_, 0) != 0 && errno != EINVAL) {  // a device has no length
      fail(Exit::io, "{}: cannot truncate: {}", file_.string(), std::strerror(errno));
    }
    position_ = 0;
    hash_ = Sha256();
    version_.clear();
    std::error_code ignored;
    fs::remove(note_, ignored);
  }

  // Follows redirects itself, so that it is plain which origin gets the token.
  Outcome attempt() {
    headers_.clear();
    if (version_.empty() && position_ > 0) start_over();
    std::string url = request_.url;
    for (int redirects = 0; redirects <= kRedirects; ++redirects) {
      check_url(url, request_);
      const CURLcode code = perform(url);
      if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
      if (code == CURLE_ABORTED_BY_CALLBACK) {
        fail(Exit::retry, "{}: stopped by a signal; what was fetched is kept", request_.shown);
      }
      long status = 0;
      curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
      if (code != CURLE_OK) return curl_failure(code, status);
      if (status / 100 == 3 && status != 304) {
        char* next = nullptr;
        curl_easy_getinfo(curl_.get(), CURLINFO_REDIRECT_URL, &next);
        if (!next) return {Outcome::stop, fmt::format("status {} without a place to go", status)};
        url = next;
        continue;
      }
      return judge(status);
    }
    return {Outcome::stop, fmt::format("more than {} redirects", kRedirects)};
  }

  CURLcode perform(const std::string& url) {
    CURL* curl = curl_.get();
    curl_easy_reset(curl);
    auto set = [curl](CURLoption option, auto value) { curl_easy_setopt(curl, option, value); };
    curl_slist* list = nullptr;
    auto header = [&](const std::string& text) { list = curl_slist_append(list, text.c_str()); };
    if (!request_.bearer.empty() && parse_url(url) == parse_url(request_.url)) {
      header("Authorization: Bearer " + request_.bearer);
    }
    if (position_ > 0) header("If-Range: " + version_);
    set(CURLOPT_HTTPHEADER, list);
    const std::string range = fmt::format("{}-", position_);
    if (position_ > 0) set(CURLOPT_RANGE, range.c_str());
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_USERAGENT, "retort");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_CONNECTTIMEOUT, 30L);
    // A slow line may take hours; a dead one is found by its silence.
    set(CURLOPT_LOW_SPEED_LIMIT, 100L);
    set(CURLOPT_LOW_SPEED_TIME, 60L);
    set(CURLOPT_ERRORBUFFER, error_);
    set(CURLOPT_HEADERFUNCTION, &Download::on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &Download::on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &Download::on_progress);
    // The variables that curl's own program and Python know.
    for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
      if (const char* bundle = std::getenv(name)) {
        set(CURLOPT_CAINFO, bundle);
        break;
      }
    }
    error_[0] = 0;
    begun_ = false;
    const CURLcode code = curl_easy_perform(curl);
    curl_slist_free_all(list);
    return code;
  }

  Outcome curl_failure(CURLcode code, long status) const {
    const std::string reason = fmt::format("{}{}{}", error_[0] ? error_ : curl_easy_strerror(code),
                                           status ? fmt::format(" (status {})", status) : "",
                                           position_ ? fmt::format(" after {} bytes", position_) : "");
    switch (code) {
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_RESOLVE_PROXY:
      case CURLE_COULDNT_CONNECT:
      case CURLE_PARTIAL_FILE:
      case CURLE_OPERATION_TIMEDOUT:
      case CURLE_SSL_CONNECT_ERROR:
      case CURLE_GOT_NOTHING:
      case CURLE_SEND_ERROR:
      case CURLE_RECV_ERROR:
      case CURLE_HTTP2:
      case CURLE_HTTP2_STREAM:
        return {Outcome::again, reason};
      default:
        return {Outcome::stop, reason};
    }
  }

  // A whole answer without a redirect has come.
  Outcome judge(long status) {
    if (status == 200 || status == 206) {
      if (!begun_) begin(status);  // an empty body
      return {Outcome::done, ""};
    }
    std::string reason = fmt::format("status {}", status);
    if (auto it = headers_.find("x-error-message"); it != headers_.end()) reason += ": " + it->second.substr(0, 300);
    if (status == 416 && position_ > 0) {
      start_over();  // what lies here is longer than what the server has
      return {Outcome::again, reason + ", the file has changed; starting over"};
    }
    if (status == 408 || status == 429 || status / 100 == 5) {
      curl_off_t wait = 0;
      curl_easy_getinfo(curl_.get(), CURLINFO_RETRY_AFTER, &wait);
      return {Outcome::again, reason, static_cast<double>(wait)};
    }
    if (status == 401 || status == 403) {
      reason += request_.bearer.empty() ? ": access needs a token (HF_TOKEN for the model hub)"
                                        : ": the token gives no access; was the model's licence accepted?";
    }
    if (status == 404) reason += ": there is no such file or revision";
    return {Outcome::stop, reason};
  }

  // The first byte of a good body: where does it go?
  void begin(long status) {
    begun_ = true;
    if (status == 206) {
      uint64_t first = 0;
      auto it = headers_.find("content-range");
      if (it == headers_.end() || std::sscanf(it->second.c_str(), "bytes %lu-", &first) != 1 || first != position_) {
        fail(Exit::unavailable, "{}: asked for bytes from {}, the server's Content-Range is \"{}\"", request_.shown,
             position_, it == headers_.end() ? "" : it->second);
      }
    } else {
      start_over();
      resumed_ = false;
      remember_version();
    }
    if (lseek(fd_, static_cast<off_t>(position_), SEEK_SET) < 0) {
      fail(Exit::io, "{}: cannot seek: {}", file_.string(), std::strerror(errno));
    }
    curl_off_t length = -1;
    curl_easy_getinfo(curl_.get(), CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    progress_.start(request_.label, length < 0 ? 0 : position_ + static_cast<uint64_t>(length), true, position_);
  }

  void remember_version() {
    auto etag = headers_.find("etag"), modified = headers_.find("last-modified");
    // If-Range takes strong tags only.
    if (etag != headers_.end() && !etag->second.starts_with("W/")) {
      version_ = etag->second;
    } else if (modified != headers_.end()) {
      version_ = modified->second;
    } else {
      return;
    }
    write_json(note_, {{"url", request_.url}, {"version", version_}});
  }

  size_t receive(const char* data, size_t size) {
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206) return size;  // an error's page
    if (!begun_) begin(status);
    if (size > request_.limit - position_) {
      fail(Exit::unavailable, "{}: more than the {} bytes that it may have", request_.shown, request_.limit);
    }
    for (size_t at = 0; at < size;) {
      const ssize_t n = write(fd_, data + at, size - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(Exit::io, "{}: cannot write {}: {}", request_.shown, file_.string(), std::strerror(errno));
      // Hash and position follow what is in the file, also when the disk is full half-way.
      hash_.update(std::string_view(data + at, static_cast<size_t>(n)));
      position_ += static_cast<uint64_t>(n);
      at += static_cast<size_t>(n);
    }
    progress_.update(position_);
    return size;
  }

  HttpResult check() {
    if (fsync(fd_) != 0) fail(Exit::io, "{}: cannot fsync: {}", file_.string(), std::strerror(errno));
    HttpResult result{hash_.hex(), position_, headers_};
    std::string expected = request_.sha256;
    if (auto etag = headers_.find("x-linked-etag"); etag != headers_.end() && expected.empty()) {
      std::string tag = lower(etag->second);
      std::erase(tag, '"');
      // Git's own files have a SHA-1 there.
      if (tag.size() == 64 && tag.find_first_not_of("0123456789abcdef") == tag.npos) expected = tag;
    }
    std::string problem;
    if (auto size = headers_.find("x-linked-size");
        size != headers_.end() && std::strtoull(size->second.c_str(), nullptr, 10) != position_) {
      problem = fmt::format("expected {} bytes, found {}", size->second, position_);
    }
    if (!expected.empty() && expected != result.sha256) {
      problem = fmt::format("wrong SHA-256: expected {}, found {}", expected, result.sha256);
    }
    std::error_code ignored;
    fs::remove(note_, ignored);
    if (!problem.empty()) {
      fs::remove(file_, ignored);
      fail(Exit::unavailable, "{}: {}{}; the file is deleted", request_.shown, problem,
           resumed_ ? " (part of it came from an earlier attempt: try once more)" : "");
    }
    progress_.finish();
    return result;
  }

  void sleep(double seconds) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      if (stop_signal()) fail(Exit::retry, "{}: stopped by a signal; what was fetched is kept", request_.shown);
      std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(std::chrono::milliseconds(50),
                                                                          end - std::chrono::steady_clock::now()));
    }
  }

  // An exception must not pass through libcurl's C frames.
  template <typename F>
  size_t guarded(F&& what) noexcept {
    try {
      return what();
    } catch (...) {
      failure_ = std::current_exception();
      return 0;
    }
  }

  static size_t on_header(char* data, size_t, size_t size, void* self) {
    auto& download = *static_cast<Download*>(self);
    return download.guarded([&] {
      const std::string line(data, size);
      if (const size_t colon = line.find(':'); colon != line.npos) {
        const size_t begin = std::min(line.find_first_not_of(" \t", colon + 1), line.size());
        const size_t end = line.find_last_not_of(" \t\r\n") + 1;
        const std::string name = lower(line.substr(0, colon));
        const std::string value = begin < end ? line.substr(begin, end - begin) : "";
        // The hub's word on the file's hash counts, not that of the storage it redirects to.
        if (name.starts_with("x-linked-")) {
          download.headers_.emplace(name, value);
        } else {
          download.headers_[name] = value;
        }
      }
      return size;
    });
  }
  static size_t on_body(char* data, size_t, size_t size, void* self) {
    auto& download = *static_cast<Download*>(self);
    return download.guarded([&] { return download.receive(data, size); });
  }
  static int on_progress(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return stop_signal() != 0; }

  const HttpRequest& request_;
  fs::path file_, note_;
  Progress& progress_;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_{nullptr, curl_easy_cleanup};
  int fd_ = -1;
  uint64_t position_ = 0;
  Sha256 hash_;
  std::string version_;  ///< a strong ETag or a date: what If-Range holds the server to
  bool resumed_ = false, begun_ = false;
  std::map<std::string, std::string> headers_;
  std::exception_ptr failure_;
  char error_[CURL_ERROR_SIZE] = {};
};

}  // namespace

bool is_loopback_url(const std::string& url) { return is_loopback(parse_url(url)); }

HttpResult http_download(const HttpRequest& request, const fs::path& file, Progress& progress) {
  return Download(request, file, progress).run();
}

}  // namespace retort
