#include "potstill/base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "potstill/base/error.h"

namespace potstill {
namespace {

std::atomic<bool> g_requested{false};

void on_signal(int) {
  if (g_requested.exchange(true)) ::_exit(130);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool interrupt_requested() { return g_requested.load(std::memory_order_relaxed); }

void throw_if_interrupted() {
  if (interrupt_requested()) {
    throw Error(ErrorKind::kInterrupted, "", "stopped by a signal", "the same command goes on where this one stopped");
  }
}

}  // namespace potstill
