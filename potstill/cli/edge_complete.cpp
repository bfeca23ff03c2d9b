#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"
#include "potstill/cli/edge_commands.h"

namespace potstill {
namespace {

struct CompleteOptions {
  EdgeModelFlags model;
  SamplingFlags sampling;
  std::string prompt, json_schema;
  std::vector<std::string> stop;
  bool prompt_given = false, chat = false, json_object = false;
};

// What the answer is held to: the text itself where it is an object, else the file of that name; "" = nothing.
std::string schema_of(const CompleteOptions& options) {
  if (options.json_object) return R"({"type":"object"})";
  const std::string& given = options.json_schema;
  const size_t first = given.find_first_not_of(" \t\r\n");
  if (given.empty() || (first != std::string::npos && given[first] == '{')) return given;
  std::ifstream stream(given, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (!stream) {
    throw Error(ErrorKind::kIo, given, "cannot be read",
                "--json-schema takes a schema, {...}, or the name of its file");
  }
  return text;
}

void complete(const CompleteOptions& options, const EdgeGlobal& global) {
  const auto model = options.model.open();
  std::string prompt = options.prompt;
  if (!options.prompt_given) prompt.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  GenerateRequest request;
  request.max_new_tokens = options.sampling.max_tokens;
  request.stop = options.stop;
  request.sampling = options.sampling.params;
  request.json_schema = schema_of(options);
  if (options.chat) {
    request.messages = {{"user", prompt}};
  } else {
    request.prompt = prompt;
  }
  install_answer_interrupt();
  const auto result = model->generate_streaming(request, [&](std::string_view piece) {
    if (!global.json) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    }
    return !g_answer_stopped.load(std::memory_order_relaxed);
  });
  if (global.json) {
    const nlohmann::ordered_json report{{"text", result.text},
                                        {"tokens", result.tokens},
                                        {"finish", result.finish == FinishReason::kStop ? "stop" : "length"},
                                        {"prompt_tokens", result.prompt_tokens}};
    fmt::print("{}\n", report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else {
    fmt::print("\n");
  }
  if (g_answer_stopped.load()) throw Error(ErrorKind::kInterrupted, "", "stopped by Ctrl-C");
}

}  // namespace

void add_edge_complete(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<CompleteOptions>();
  CLI::App* command = app.add_subcommand("complete", "Continue a text (from --prompt or stdin)");
  command->fallthrough();
  options->model.add_to(*command);
  options->sampling.add_to(*command, 0.0);
  auto* prompt = command->add_option("--prompt", options->prompt, "text to continue; without it, all of stdin");
  command->add_option("--stop", options->stop, "the answer ends before this text (may be given again)");
  command->add_flag("--chat", options->chat,
                    "the prompt is a user's message: put it through the model's chat template");
  auto* schema = command->add_option("--json-schema", options->json_schema,
                                     "hold the answer to this JSON Schema, {...} or its file; docs/serve.md says what "
                                     "is taken of the standard");
  command->add_flag("--json-object", options->json_object, "hold the answer to some JSON object")->excludes(schema);
  command->footer(
      "Examples:\n"
      "  potstill-edge complete student.gguf --prompt 'The capital of France is' --max-tokens 8\n"
      "  potstill-edge complete student.gguf --chat --prompt 'Why does ice float?' --temperature 0.7 --seed 1\n"
      "  potstill-edge complete student.gguf --json-schema '{\"enum\": [\"yes\", \"no\"]}' --prompt 'Does ice float? "
      "'\n"
      "  cat question.txt | potstill-edge complete student.gguf --json");
  command->callback([options, prompt, &global] {
    options->prompt_given = prompt->count() > 0;
    complete(*options, global);
  });
}

}  // namespace potstill
