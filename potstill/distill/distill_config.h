// Settings of distillation training: the recipe's [distill] section, `potstill train`'s flags, a search trial's point.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

// How the answers are read from a data file, and which of the pairs are kept out of training.
struct DistillDataConfig {
  double held_out = 0.1;
  int64_t max_sequence_length = 1024;
  std::string cross_tokenizer = "refuse";
  std::string rendering = "chat";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("rendering", self.rendering,
          "chat: pairs as turns of the model's template; plain: the instruction, a blank and the output, as "
          "lm-evaluation-harness asks benchmarks",
          one_of({"chat", "plain"}));
    visit("held_out", self.held_out,
          "share of the pairs to measure on instead of training, where the file marks none; 0 = train on all",
          in_range(0, 0.5));
    visit("max_sequence_length", self.max_sequence_length, "longer pairs are left out, and counted", at_least(8));
    visit("cross_tokenizer", self.cross_tokenizer,
          "what to do where the teacher's tokenizer is another than the student's: refuse, or learn by uld, which "
          "compares sorted probabilities and is no KL",
          one_of({"refuse", "uld"}));
  }
};

struct DistillConfig {
  // Loss: alpha · temperature² · divergence(teacher, student) + (1 - alpha) · CE
  std::string divergence = "forward-kl";
  double jsd_beta = 0.5;
  double alpha = 1.0;
  double temperature = 2.0;

  // Adapter, in PEFT's words
  int64_t rank = 16;
  double lora_alpha = 32.0;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  std::vector<std::string> target_modules = {"all-linear"};

  // Optimizer
  std::string optimizer = "muon";
  double lr = 0.0;
  std::string muon_scale = "original";
  double momentum = 0.95;
  double weight_decay = 0.0;
  double beta1 = 0.9, beta2 = 0.999;
  double max_grad_norm = 1.0;
  double warmup_ratio = 0.1;
  double min_lr_ratio = 0.0;

  // Data order and sizes
  double epochs = 1.0;
  int64_t batch_size = 8;
  int64_t tokens_per_batch = 2048;
  int64_t loss_rows = 128;
  int64_t eval_every = 0;
  int64_t checkpoint_every = 25;
  std::string checkpoint_activations = "auto";
  std::string on_divergence = "retry";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("divergence", self.divergence,
          "what is made small between the distributions: KL(teacher || student), KL(student || teacher), or the "
          "Jensen-Shannon divergence of GKD; uld compares sorted probabilities, for tests of the loss that "
          "--cross-tokenizer uld takes",
          one_of({"forward-kl", "reverse-kl", "jsd", "uld"}));
    visit("jsd_beta", self.jsd_beta, "the teacher's weight in jsd's mixture", in_range(0.001, 0.999));
    visit("alpha", self.alpha, "weight of the teacher's distribution; 1 - alpha is the labels'", in_range(0, 1));
    visit("temperature", self.temperature, "softens both distributions in the KL term", in_range(0.05, 100));
    visit("rank", self.rank, "rank of the LoRA factors", in_range(1, 4096));
    visit("lora_alpha", self.lora_alpha, "the factors' product is scaled by lora_alpha / rank", in_range(1e-6, 1e6));
    visit("lora_dropout", self.lora_dropout, "dropout on the input of the A factors", in_range(0, 0.95));
    visit("use_rslora", self.use_rslora, "scale by lora_alpha / sqrt(rank) instead", any());
    visit("target_modules", self.target_modules, "linears that get factors: names such as q_proj, or all-linear",
          any());
    visit("optimizer", self.optimizer,
          "optimizer of the factors: muon, adamw or lora-muon, or several in turn with their shares of the steps, such "
          "as adamw:0.5,muon:0.5",
          any());
    visit("lr", self.lr,
          "peak learning rate; 0 = the optimizer's default (0.01 for muon and lora-muon, 5e-4 for adamw)",
          in_range(0, 100));
    visit("muon_scale", self.muon_scale, "how Muon scales a step by the factor's shape",
          one_of({"original", "match-rms-adamw", "spectral-unclamped"}));
    visit("momentum", self.momentum, "Muon's (Nesterov) momentum", in_range(0, 0.9999));
    visit("weight_decay", self.weight_decay, "decoupled decay of the factors", in_range(0, 10));
    visit("beta1", self.beta1, "AdamW's first moment", in_range(0, 0.99999));
    visit("beta2", self.beta2, "AdamW's second moment", in_range(0, 0.999999));
    visit("max_grad_norm", self.max_grad_norm, "gradients are clipped to this norm; 0 = never", at_least(0));
    visit("warmup_ratio", self.warmup_ratio, "share of the steps over which the rate rises", in_range(0, 1));
    visit("min_lr_ratio", self.min_lr_ratio, "the cosine ends at this share of the peak", in_range(0, 1));
    visit("epochs", self.epochs, "passes over the training pairs", in_range(0.01, 1000));
    visit("batch_size", self.batch_size, "pairs of an optimizer step", at_least(1));
    visit(
        "tokens_per_batch", self.tokens_per_batch,
        "a step is cut into packed batches of at most about this many tokens: bounds memory, never changes the result",
        at_least(1));
    visit("loss_rows", self.loss_rows, "answer positions whose logits are alive at a time", in_range(1, 65536));
    visit("eval_every", self.eval_every, "steps between measurements on the held-out pairs; 0 = only at the end",
          at_least(0));
    visit("on_divergence", self.on_divergence,
          "retry: begin again at a tenth of the learning rate, twice at most; stop: end the run with an error",
          one_of({"retry", "stop"}));
    visit("checkpoint_activations", self.checkpoint_activations,
          "keep only each layer's input for the gradient and compute the layer again: less memory, a third more "
          "arithmetic, the same result; auto = where the memory at hand asks for it",
          one_of({"auto", "on", "off"}));
    visit("checkpoint_every", self.checkpoint_every, "steps between checkpoints; 0 = none", at_least(0));
  }

  // The peak rate: `lr`, or the default of the optimizer and its scale rule when that is 0.
  double peak_lr() const;
  double peak_lr(const std::string& optimizer_name) const;
};

// How the teacher's knowledge is kept: `potstill teach`.
struct TeachConfig {
  std::string cache_dtype = "fp16";
  bool copy_head = false;
  int64_t tokens_per_batch = 4096;
  std::string memory;
  // of a teacher behind an endpoint:
  std::string teacher_model, tokenizer;
  int64_t top_k = 20;
  int64_t concurrency = 8;
  int64_t budget_tokens = 0;
  double budget_cost = 0, prompt_price = 0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("cache_dtype", self.cache_dtype, "how the teacher's hidden states are stored",
          one_of({"fp16", "bf16", "fp32"}));
    visit("copy_head", self.copy_head, "copy the teacher's LM head into the cache, which then needs no teacher", any());
    visit("tokens_per_batch", self.tokens_per_batch, "tokens that go through a layer together, at most", at_least(1));
    visit("memory", self.memory,
          "bound of the resident memory, such as 4GiB: fewer tokens go through a layer together; empty = none", any());
    visit("teacher_model", self.teacher_model, "the model's name, where the teacher is an endpoint (http://…/v1)",
          any());
    visit("tokenizer", self.tokenizer,
          "a model with the endpoint's tokenizer and chat template (folder or GGUF); the student, as a rule", any());
    visit("top_k", self.top_k, "likeliest tokens that an endpoint is asked for at each place (vLLM gives 20)",
          in_range(1, 1000));
    visit("concurrency", self.concurrency, "requests that an endpoint gets at a time; fewer while it is busy",
          in_range(1, 1024));
    visit("budget_tokens", self.budget_tokens, "stop cleanly when an endpoint has read so many (0 = any number)",
          in_range(0, 1e15));
    visit("budget_cost", self.budget_cost, "stop cleanly when they cost so much (0 = any)", in_range(0.0, 1e9));
    visit("prompt_price", self.prompt_price, "price of a million tokens read", in_range(0.0, 1e6));
  }
};

}  // namespace potstill
