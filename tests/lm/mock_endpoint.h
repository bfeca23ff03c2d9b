// MockEndpoint: an HTTP server for tests that answers each request with whatever bytes a test wants, however wrong.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace potstill {

class MockEndpoint {
 public:
  struct Request {
    std::string path, head, body;
    int number;  // from 0, by arrival
  };
  // Bytes to send, after which the connection is closed; "" closes it without a word, kSilence says nothing for ever.
  using Handler = std::function<std::string(const Request&)>;
  static inline const std::string kSilence = "silence";

  explicit MockEndpoint(Handler handler) : handler_(std::move(handler)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 256);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { accept_all(); });
  }
  ~MockEndpoint() {
    stop_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (auto& worker : workers_) worker.join();
    ::close(listener_);
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }
  std::atomic<int> num_requests{0}, most_at_once{0};

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      workers_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    const int now = ++open_;
    for (int most = most_at_once; now > most && !most_at_once.compare_exchange_weak(most, now);) {
    }
    std::string all;
    char buffer[4096];
    size_t end = std::string::npos, wanted = 0;
    while (end == std::string::npos || all.size() < wanted) {
      const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      all.append(buffer, static_cast<size_t>(got));
      end = all.find("\r\n\r\n");
      const size_t length = all.find("Content-Length: ");
      if (end != std::string::npos && length < end) wanted = end + 4 + std::stoul(all.substr(length + 16));
    }
    if (end != std::string::npos) {
      const size_t first = all.find(' '), second = all.find(' ', first + 1);
      const Request request{all.substr(first + 1, second - first - 1), all.substr(0, end), all.substr(end + 4),
                            num_requests++};
      const std::string bytes = handler_(request);
      if (bytes == kSilence) {
        while (!stop_ && ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) != 0) ::usleep(5000);
      } else {
        ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      }
    }
    --open_;
    ::close(fd);
  }

  Handler handler_;
  int listener_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> open_{0};
  std::vector<std::thread> workers_;
  std::thread thread_;
};

inline std::string http_response(int status, const std::string& body, const std::string& headers = "") {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: application/json\r\nConnection: close\r\n" +
         headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace potstill
