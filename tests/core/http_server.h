// A small HTTP server on 127.0.0.1 that can misbehave: it answers as its handler says, drops connections half-way and
// lies about lengths. One thread a connection; every request is kept.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace retort {

struct ServerRequest {
  std::string method, path;
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
  std::string header(const std::string& name) const {
    auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

struct ServerReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  std::optional<size_t> claimed_length = {};  ///< Content-Length, else the body's own
  std::optional<size_t> drop_after = {};      ///< the connection ends after so many bytes of the body
  int pause_ms = 0;                           ///< before every 16 KiB of the body
};

class HttpServer {
 public:
  explicit HttpServer(std::function<ServerReply(const ServerRequest&)> handler) : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no server socket");
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] {
      for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
        std::lock_guard lock(mutex_);
        workers_.emplace_back([this, fd] { serve(fd); });
      }
    });
  }
  ~HttpServer() { stop(); }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void stop() {
    if (listener_ < 0) return;
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    listener_ = -1;
    for (std::thread& worker : workers_) worker.join();
  }

  std::string url(const std::string& path = "") const { return fmt::format("http://127.0.0.1:{}{}", port_, path); }
  std::vector<ServerRequest> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve(int fd) {
    std::string text;
    char buffer[4096];
    while (text.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) {
        close(fd);
        return;
      }
      text.append(buffer, static_cast<size_t>(n));
    }
    ServerRequest request;
    std::istringstream lines(text);
    lines >> request.method >> request.path;
    for (std::string line; std::getline(lines, line);) {
      const size_t colon = line.find(": ");
      if (colon == line.npos) continue;
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      request.headers[name] = line.substr(colon + 2, line.find('\r') - colon - 2);
    }
    request.body = text.substr(text.find("\r\n\r\n") + 4);
    const std::string length = request.header("content-length");
    while (!length.empty() && request.body.size() < std::stoull(length)) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      request.body.append(buffer, static_cast<size_t>(n));
    }
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const ServerReply reply = handler_(request);
    std::string head = fmt::format("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status,
                                   reply.claimed_length.value_or(reply.body.size()));
    for (const auto& [name, value] : reply.headers) head += fmt::format("{}: {}\r\n", name, value);
    head += "\r\n";
    send_all(fd, head, 0);
    send_all(fd, reply.body.substr(0, reply.drop_after.value_or(reply.body.size())), reply.pause_ms);
    shutdown(fd, SHUT_WR);
    while (recv(fd, buffer, sizeof buffer, 0) > 0) {
    }
    close(fd);
  }

  static void send_all(int fd, const std::string& text, int pause_ms) {
    for (size_t at = 0; at < text.size();) {
      if (pause_ms) std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
      const ssize_t n = send(fd, text.data() + at, std::min<size_t>(text.size() - at, 1 << 14), MSG_NOSIGNAL);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
  }

  std::function<ServerReply(const ServerRequest&)> handler_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread acceptor_;
  mutable std::mutex mutex_;
  std::vector<std::thread> workers_;
  std::vector<ServerRequest> requests_;
};

/// As a good server answers for a file: ranges, If-Range.
inline ServerReply serve_file(const ServerRequest& request, const std::string& content, const std::string& etag) {
  ServerReply reply{.headers = {{"ETag", etag}, {"Accept-Ranges", "bytes"}}, .body = content};
  const std::string range = request.header("range");
  if (range.empty() || request.header("if-range") != etag) return reply;
  const size_t first = std::stoull(range.substr(range.find('=') + 1));
  if (first >= content.size()) return {.status = 416};
  reply.status = 206;
  reply.body = content.substr(first);
  reply.headers.emplace_back("Content-Range", fmt::format("bytes {}-{}/{}", first, content.size() - 1, content.size()));
  return reply;
}

}  // namespace retort
