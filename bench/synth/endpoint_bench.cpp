// What synth's client costs beside the endpoint: many requests to a server in the same machine that answers at once,
// through the answer store (every answer on the disk before it is used).
//
//   endpoint_bench [REQUESTS=10000] [IN_FLIGHT=64]
//
// The server is one thread with keep-alive connections; it answers a fifth of all requests with 429, 503, a torn body
// or a closed connection. Prints wall and CPU time a request, of the client alone, and the resident memory as requests
// go by.
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "tests/lm/keep_alive_endpoint.h"

#include "potstill/base/log.h"
#include "potstill/lm/openai_model.h"
#include "potstill/synth/answer_store.h"

namespace {

double resident_mb() {
  std::ifstream statm("/proc/self/statm");
  double size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1e6;
}

// CPU seconds of the calling thread: the server has its own.
double thread_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
  const size_t count = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10'000;
  const int in_flight = argc > 2 ? std::atoi(argv[2]) : 64;
  potstill::set_verbosity(potstill::Verbosity::kQuiet);
  potstill::KeepAliveEndpoint endpoint([](const potstill::KeepAliveEndpoint::Request& request) -> std::string {
    switch (request.number % 25) {
      case 3:
        return potstill::keep_alive_response(429, "{}", "Retry-After: 0\r\n");
      case 9:
        return potstill::keep_alive_response(503, "busy");
      case 14:
        return potstill::keep_alive_response(200, R"({"choices": [{"message": {"cont)");
      case 19:
        return "";  // hangs up
      default:
        return potstill::keep_alive_response(
            200,
            R"({"choices":[{"message":{"role":"assistant","content":"A sentence of some length that answers what was )"
            R"(asked, as a teacher would write it."},"finish_reason":"stop"}],)"
            R"("usage":{"prompt_tokens":100,"completion_tokens":20}})");
    }
  });
  potstill::OpenAiOptions options;
  options.http.url = endpoint.url();
  options.http.concurrency = in_flight;
  options.http.max_tries = 50;
  options.http.first_pause = std::chrono::milliseconds(1);
  options.model = "mock";
  potstill::OpenAiModel model(options);
  const std::string journal = fmt::format("/tmp/endpoint_bench_{}.jsonl", ::getpid());
  {
    potstill::AnswerStore store(model, journal, in_flight);
    const auto start = std::chrono::steady_clock::now();
    const double cpu = thread_cpu_seconds();
    fmt::print("{:>9} {:>12} {:>12} {:>10}\n", "requests", "wall us each", "cpu us each", "memory MB");
    for (size_t done = 0; done < count;) {
      std::vector<potstill::GenerateRequest> requests(std::min(std::max<size_t>(1, count / 10), count - done));
      for (size_t i = 0; i < requests.size(); ++i) {
        requests[i].messages = {{"system", std::string(600, 'x')}, {"user", fmt::format("question {}", done + i)}};
      }
      store.generate("questions", requests);
      done += requests.size();
      const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      fmt::print("{:>9} {:>12.0f} {:>12.0f} {:>10.1f}\n", done, 1e6 * wall / static_cast<double>(done),
                 1e6 * (thread_cpu_seconds() - cpu) / static_cast<double>(done), resident_mb());
    }
    fmt::print("{} answers, {} tries were repeated, most in flight {}\n", store.num_asked(), model.num_retries(),
               endpoint.most_at_once.load());
  }
  ::unlink(journal.c_str());
  return 0;
}
