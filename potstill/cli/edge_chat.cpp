#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/cli/edge_commands.h"
#include "potstill/cli/edge_line_editor.h"

namespace potstill {
namespace {

struct ChatOptions {
  EdgeModelFlags model;
  SamplingFlags sampling;
  std::string system;
};

// Lines of stdin: edited where a person types, as they are out of a pipe.
class LineReader {
 public:
  explicit LineReader(bool terminal) : terminal_(terminal), editor_("> ") {}

  // The next line without its "\n"; nothing at the end of the input. Ctrl-C begins a fresh line.
  std::optional<std::string> next() {
    if (!terminal_) {
      std::string line;
      if (!std::getline(std::cin, line)) return std::nullopt;
      while (!line.empty() && line.back() == '\r') line.pop_back();
      return line;
    }
    fmt::print(stderr, "\n");
    for (;;) {
      const auto line = editor_.next();
      if (!line) return std::nullopt;
      if (!line->interrupted) return line->text;
      if (line->text.empty()) fmt::print(stderr, "(/exit or Ctrl-D leaves)\n");
    }
  }

 private:
  bool terminal_;
  LineEditor editor_;
};

constexpr std::string_view kCommands =
    "  /system TEXT   a new conversation with that system text (none: without)\n"
    "  /reset         a new conversation with the same system text\n"
    "  /retry         the last question again\n"
    "  /save FILE     the conversation, as a line of JSON with \"messages\"; a file that exists is added to\n"
    "  /exit          leaves, as Ctrl-D does";

class Chat {
 public:
  Chat(const ChatOptions& options, bool terminal, bool quiet)
      : options_(options), terminal_(terminal), notes_(terminal && !quiet), model_(options.model.open()) {
    reset(options.system);
  }

  void run() {
    if (notes_) {
      fmt::print(stderr, "{} · {} layers · {} thread{} · /help lists the commands · Ctrl-C stops an answer\n",
                 model_->package().path.filename().string(), model_->config().num_hidden_layers, model_->threads(),
                 model_->threads() == 1 ? "" : "s");
    }
    std::setlocale(LC_CTYPE, "");  // how wide a character is drawn
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
    const size_t blank = line.find(' ');
    const std::string command = line.substr(0, blank);
    const std::string argument = blank == std::string::npos ? "" : line.substr(line.find_last_not_of(' ', blank) + 2);
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/reset") {
      reset(system_());
      note("a new conversation");
    } else if (command == "/system") {
      reset(argument);
      note(messages_.empty() ? "a new conversation" : "a new conversation with that system text");
    } else if (command == "/retry") {
      retry();
    } else if (command == "/save") {
      save(argument);
    } else if (command == "/help") {
      fmt::print(stderr, "{}\n", kCommands);
    } else {
      fmt::print(stderr, "'{}' is no command here; there are\n{}\n", command, kCommands);
    }
    return true;
  }

  void note(std::string_view text) const {
    if (notes_) fmt::print(stderr, "({})\n", text);
  }

  void retry() {
    if (!messages_.empty() && messages_.back().role == "assistant") messages_.pop_back();
    if (messages_.empty() || messages_.back().role != "user") return note("nothing was asked yet");
    const std::string question = messages_.back().content;
    messages_.pop_back();
    ++retries_;
    answer(question);
  }

  // One record of the kind that potstill trains on.
  void save(const std::string& file) const {
    if (file.empty()) return fmt::print(stderr, "/save FILE: into which file?\n");
    nlohmann::ordered_json record{{"messages", nlohmann::ordered_json::array()}};
    for (const ChatMessage& message : messages_) {
      record["messages"].push_back({{"role", message.role}, {"content", message.content}});
    }
    std::ofstream stream(file, std::ios::app);
    stream << record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
    stream.flush();
    if (!stream) return fmt::print(stderr, "error: {}: {}\n", file, std::strerror(errno));
    note(fmt::format("{} messages saved", messages_.size()));
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
    request.sampling.seed += messages_.size() + 1000 * retries_;  // a question asked twice may be answered in two ways
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
  uint64_t retries_ = 0;
};

}  // namespace

void add_edge_chat(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "Talk with a model; reads lines from a terminal or a pipe");
  command->fallthrough();
  options->model.long_lived = true;
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
