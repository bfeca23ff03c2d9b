#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/cli/edge_commands.h"

namespace potstill {
namespace {

struct ChatOptions {
  EdgeModelFlags model;
  SamplingFlags sampling;
  std::string system;
};

// Lines of stdin; a prompt mark only where a person types.
class LineReader {
 public:
  explicit LineReader(bool terminal) : terminal_(terminal) {}
  ~LineReader() { std::free(line_); }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line without its "\n"; nothing at the end of the input. Ctrl-C begins a fresh line.
  std::optional<std::string> next() {
    for (;;) {
      if (terminal_) fmt::print(stderr, "\n> ");
      errno = 0;
      const ssize_t length = ::getline(&line_, &capacity_, stdin);
      if (length >= 0) {
        std::string line(line_, static_cast<size_t>(length));
        while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
        return line;
      }
      if (errno != EINTR) return std::nullopt;
      std::clearerr(stdin);
      g_answer_stopped.store(false);
      fmt::print(stderr, "  (/exit or Ctrl-D leaves)");
    }
  }

 private:
  bool terminal_;
  char* line_ = nullptr;
  size_t capacity_ = 0;
};

class Chat {
 public:
  Chat(const ChatOptions& options, bool terminal, bool quiet)
      : options_(options), terminal_(terminal), notes_(terminal && !quiet), model_(options.model.open()) {
    reset(options.system);
  }

  void run() {
    if (notes_) {
      fmt::print(stderr, "{} · {} layers · {} threads · /system TEXT, /reset, /exit · Ctrl-C stops an answer\n",
                 model_->package().path.filename().string(), model_->config().num_hidden_layers, model_->threads());
    }
    install_answer_interrupt();
    LineReader lines(terminal_);
    while (const auto line = lines.next()) {
      if (line->empty()) continue;
      if ((*line)[0] == '/') {
        if (!obey(*line)) return;
      } else {
        answer(*line);
      }
    }
  }

 private:
  void reset(const std::string& system) {
    messages_.clear();
    if (!system.empty()) messages_.push_back({"system", system});
  }

  // A line that begins with "/"; false to leave.
  bool obey(const std::string& line) {
    if (line == "/exit" || line == "/quit") return false;
    if (line == "/reset") {
      reset(system_());
      if (notes_) fmt::print(stderr, "(a new conversation)\n");
    } else if (line.rfind("/system", 0) == 0 && (line.size() == 7 || line[7] == ' ')) {
      reset(line.size() > 8 ? line.substr(8) : "");
      if (notes_) fmt::print(stderr, "(a new conversation{})\n", messages_.empty() ? "" : " with that system text");
    } else {
      fmt::print(stderr, "'{}' is no command here: /system TEXT, /reset, /exit\n", line);
    }
    return true;
  }

  std::string system_() const {
    return !messages_.empty() && messages_[0].role == "system" ? messages_[0].content : std::string();
  }

  void answer(const std::string& question) {
    messages_.push_back({"user", question});
    GenerateRequest request;
    request.messages = messages_;
    request.max_new_tokens = options_.sampling.max_tokens;
    request.sampling = options_.sampling.params;
    request.sampling.seed += messages_.size();  // a question asked twice may be answered in two ways
    g_answer_stopped.store(false);
    const auto start = std::chrono::steady_clock::now();
    GenerateResult result;
    try {
      result = model_->generate_streaming(request, [](std::string_view piece) {
        fmt::print("{}", piece);
        std::fflush(stdout);
        return !g_answer_stopped.load(std::memory_order_relaxed);
      });
    } catch (const Error& error) {
      if (!terminal_) throw;
      messages_.pop_back();  // a question that does not fit: the conversation goes on without it
      fmt::print(stderr, "error: {}\n(/reset begins a new conversation)\n", error.what());
      return;
    }
    fmt::print("\n");
    std::fflush(stdout);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (notes_) {
      fmt::print(stderr, "({} tokens, {:.1f} a second{})\n", result.tokens.size(),
                 static_cast<double>(result.tokens.size()) / seconds,
                 g_answer_stopped.load()                  ? ", stopped"
                 : result.finish == FinishReason::kLength ? ", cut at --max-tokens"
                                                          : "");
    }
    g_answer_stopped.store(false);
    messages_.push_back({"assistant", result.text});
  }

  const ChatOptions& options_;
  bool terminal_, notes_;
  std::unique_ptr<edge::EdgeModel> model_;
  std::vector<ChatMessage> messages_;
};

}  // namespace

void add_edge_chat(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "Talk with a model; reads lines from a terminal or a pipe");
  command->fallthrough();
  options->model.add_to(*command);
  options->sampling.add_to(*command, 0.7);
  options->sampling.params.top_p = 0.95;
  options->sampling.max_tokens = 512;
  command->add_option("--system", options->system, "system text of the conversation");
  command->footer(
      "Examples:\n"
      "  potstill-edge chat student.gguf\n"
      "  potstill-edge chat student.gguf --system 'Answer in one sentence.' --temperature 0\n"
      "  echo 'Why does ice float?' | potstill-edge chat student.gguf");
  command->callback([options, &global] { Chat(*options, ::isatty(STDIN_FILENO) == 1, global.quiet).run(); });
}

}  // namespace potstill
