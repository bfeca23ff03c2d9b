#include <signal.h>

#include "potstill/base/error.h"
#include "potstill/cli/edge_commands.h"

namespace potstill {

std::atomic<bool> g_answer_stopped{false};

void EdgeModelFlags::add_to(CLI::App& command, bool required) {
  command
      .add_option("model", model,
                  "GGUF file (F32, F16, BF16, Q8_0, Q4_0, Q4_1) or Hugging Face folder (W4A16, or 16 bits)")
      ->required(required);
  command.add_option("--threads", threads, "threads (0 = one a CPU)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command.add_option("--context", context, "positions that prompt and answer may take (0 = the model's own maximum)")
      ->capture_default_str();
  // A function, for CLI11 takes an optional<bool> for a counter and sets it to 0 at once.
  command.add_flag_function(
      "--repack,!--no-repack", [this](int64_t count) { repack = count > 0; },
      "copy the weights at the start, in the processor's order and into huge pages: faster, no memory more, but its "
      "own; " +
          std::string(long_lived ? "done by itself where memory allows" : "not by itself"));
  command
      .add_option(
          "--activations", activations,
          "16: what a 4-bit-weight, 16-bit-activation file says. 8: as llama.cpp does, faster in prompts. auto = 16")
      ->check(CLI::IsMember({"auto", "16", "8"}))
      ->capture_default_str();
  command
      .add_option("--kv-cache", kv_cache,
                  "bits of cached keys and values: 8 take 53 % of the memory; `perplexity --cost` says what they cost")
      ->check(CLI::IsMember({"16", "8"}))
      ->capture_default_str();
}

std::unique_ptr<edge::EdgeModel> EdgeModelFlags::open() const {
  const auto mode = activations == "8" ? edge::ActivationMode::kFast : edge::ActivationMode::kExact;
  const auto how = !repack.has_value() ? (long_lived ? edge::Repack::kWhereItPays : edge::Repack::kNo)
                   : *repack           ? edge::Repack::kYes
                                       : edge::Repack::kNo;
  const auto type = kv_cache == "8" ? kernels::KvType::kByte : kernels::KvType::kHalf;
  return std::make_unique<edge::EdgeModel>(
      model,
      edge::EdgeOptions{.threads = threads, .context = context, .activations = mode, .repack = how, .kv_cache = type});
}

void SamplingFlags::add_to(CLI::App& command, double default_temperature) {
  params.temperature = default_temperature;
  command.add_option("--temperature", params.temperature, "0 = always the likeliest token")->capture_default_str();
  command.add_option("--top-k", params.top_k, "draw among the k likeliest (0 = all)")->capture_default_str();
  command.add_option("--top-p", params.top_p, "draw among the fewest that reach this probability")
      ->capture_default_str();
  command.add_option("--min-p", params.min_p, "leave out what is less likely than this share of the likeliest")
      ->capture_default_str();
  command.add_option("--repetition-penalty", params.repetition_penalty, "above 1: divides the logits of what was said")
      ->capture_default_str();
  command.add_option("--seed", params.seed, "same seed, same text")->capture_default_str();
  command.add_option("--max-tokens", max_tokens, "longest answer")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
}

void install_answer_interrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { g_answer_stopped.store(true, std::memory_order_relaxed); };
  sigemptyset(&action.sa_mask);  // and no SA_RESTART: a read of the terminal returns
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace potstill
