// KeepAliveEndpoint: an HTTP server for tests of many requests: one thread, connections that stay open.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace potstill {

class KeepAliveEndpoint {
 public:
  struct Request {
    std::string path, body;
    int number;  // from 0, by arrival
  };
  // Bytes to send; "" closes the connection without a word.
  using Handler = std::function<std::string(const Request&)>;

  explicit KeepAliveEndpoint(Handler handler)
      : handler_(std::move(handler)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 512);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~KeepAliveEndpoint() {
    stop_ = true;
    thread_.join();
    for (const auto& connection : connections_) ::close(connection.fd);
    ::close(listener_);
  }
  KeepAliveEndpoint(const KeepAliveEndpoint&) = delete;
  KeepAliveEndpoint& operator=(const KeepAliveEndpoint&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1"; }
  std::atomic<int> num_requests{0}, num_connections{0}, most_at_once{0};

 private:
  struct Connection {
    int fd;
    std::string received;
    bool open = true;
  };

  void serve() {
    while (!stop_) {
      std::vector<pollfd> polled{{listener_, POLLIN, 0}};
      for (const auto& connection : connections_) polled.push_back({connection.fd, POLLIN, 0});
      ::poll(polled.data(), polled.size(), 20);
      int readable = 0;
      for (size_t i = 1; i < polled.size(); ++i) {
        if ((polled[i].revents & (POLLIN | POLLHUP)) == 0) continue;
        ++readable;
        read_from(connections_[i - 1]);
      }
      if (readable > most_at_once) most_at_once = readable;
      std::erase_if(connections_, [](const Connection& connection) {
        if (!connection.open) ::close(connection.fd);
        return !connection.open;
      });
      for (int fd = 0; (polled[0].revents & POLLIN) != 0 && (fd = ::accept(listener_, nullptr, nullptr)) >= 0;) {
        connections_.push_back({fd, {}});
        ++num_connections;
      }
    }
  }

  void read_from(Connection& connection) {
    char buffer[65536];
    const ssize_t got = ::recv(connection.fd, buffer, sizeof buffer, 0);
    if (got <= 0) {
      connection.open = false;
      return;
    }
    connection.received.append(buffer, static_cast<size_t>(got));
    for (;;) {
      std::string& all = connection.received;
      const size_t end = all.find("\r\n\r\n"), length = all.find("Content-Length: ");
      if (end == std::string::npos || length > end) return;
      const size_t whole = end + 4 + std::stoul(all.substr(length + 16));
      if (all.size() < whole) return;
      const size_t first = all.find(' '), second = all.find(' ', first + 1);
      const Request request{all.substr(first + 1, second - first - 1), all.substr(end + 4, whole - end - 4),
                            num_requests++};
      all.erase(0, whole);
      const std::string bytes = handler_(request);
      connection.open = !bytes.empty();
      if (!connection.open) return;
      ::send(connection.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
  }

  Handler handler_;
  int listener_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::vector<Connection> connections_;
  std::thread thread_;
};

inline std::string keep_alive_response(int status, const std::string& body, const std::string& headers = "") {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: application/json\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace potstill
