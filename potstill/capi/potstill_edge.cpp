#include "potstill/capi/potstill_edge.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/edge/edge_model.h"

struct potstill_edge_model {
  potstill::edge::EdgeModel model;
};

namespace {

using potstill::Error;
using potstill::ErrorKind;

thread_local std::string t_error;

potstill_edge_status status_of(const Error& error) {
  const int code = error.exit_code();
  const bool known = code == POTSTILL_EDGE_USAGE || code == POTSTILL_EDGE_FORMAT || code == POTSTILL_EDGE_IO ||
                     code == POTSTILL_EDGE_MEMORY;
  return known ? static_cast<potstill_edge_status>(code) : POTSTILL_EDGE_OTHER;
}

// Runs body; whatever it throws becomes a status and the sentence of potstill_edge_error().
template <class Body>
potstill_edge_status guarded(const Body& body) noexcept {
  potstill_edge_status status = POTSTILL_EDGE_OTHER;
  try {
    try {
      body();
      return POTSTILL_EDGE_OK;
    } catch (const Error& error) {
      status = status_of(error);
      t_error = error.what();
    } catch (const std::bad_alloc&) {
      status = POTSTILL_EDGE_MEMORY;
      t_error = "out of memory";
    } catch (const std::exception& error) {
      t_error = error.what();
    }
  } catch (...) {  // no memory for the sentence
  }
  return status;
}

template <class T>
T* required(T* pointer, const char* name) {
  if (pointer == nullptr) throw Error(ErrorKind::kUsage, name, "is NULL");
  return pointer;
}

// The caller's struct over the defaults, as much of it as the caller knows.
template <class Struct>
Struct merged(const Struct* given, Struct defaults, const char* name) {
  if (given == nullptr) return defaults;
  if (given->size < sizeof(size_t) || given->size > sizeof(Struct)) {
    throw Error(ErrorKind::kUsage, name, "has a size that this library does not know",
                "get the struct from its potstill_edge_default_ function");
  }
  std::memcpy(&defaults, given, given->size);
  return defaults;
}

potstill::GenerateRequest request_of(const potstill_edge_sampling* given) {
  const auto sampling = merged(given, potstill_edge_default_sampling(), "sampling");
  potstill::GenerateRequest request;
  request.max_new_tokens = sampling.max_tokens;
  request.sampling.temperature = sampling.temperature;
  request.sampling.top_p = sampling.top_p;
  request.sampling.min_p = sampling.min_p;
  request.sampling.repetition_penalty = sampling.repetition_penalty;
  request.sampling.top_k = sampling.top_k;
  request.sampling.seed = sampling.seed;
  for (size_t i = 0; i < sampling.num_stop; ++i) {
    request.stop.emplace_back(required(required(sampling.stop, "stop")[i], "stop"));
  }
  return request;
}

void generate(potstill_edge_model* model, const potstill::GenerateRequest& request, potstill_edge_on_text on_text,
              void* user) {
  required(model, "model")->model.generate_streaming(request, [&](std::string_view piece) {
    return on_text == nullptr || on_text(piece.data(), piece.size(), user) != 0;
  });
}

// Copies as much as there is room for; the whole count.
template <class Range, class T>
int64_t copy_out(const Range& values, T* out, size_t capacity) {
  const size_t count = std::min(capacity, static_cast<size_t>(values.size()));
  if (count > 0) std::copy_n(values.begin(), count, required(out, "buffer"));
  return static_cast<int64_t>(values.size());
}

}  // namespace

extern "C" {

potstill_edge_options potstill_edge_default_options() {
  potstill_edge_options options{};
  options.size = sizeof(options);
  return options;
}

potstill_edge_sampling potstill_edge_default_sampling() {
  potstill_edge_sampling sampling{};
  sampling.size = sizeof(sampling);
  sampling.max_tokens = 256;
  sampling.top_p = 1;
  sampling.repetition_penalty = 1;
  return sampling;
}

const char* potstill_edge_version() { return POTSTILL_VERSION; }
const char* potstill_edge_error() { return t_error.c_str(); }

potstill_edge_model* potstill_edge_load(const char* path, const potstill_edge_options* given) {
  potstill_edge_model* model = nullptr;
  guarded([&] {
    const auto options = merged(given, potstill_edge_default_options(), "options");
    potstill::set_verbosity(potstill::Verbosity::kQuiet);
    const auto mode =
        options.eight_bit != 0 ? potstill::edge::ActivationMode::kFast : potstill::edge::ActivationMode::kExact;
    const auto cache =
        options.eight_bit_cache != 0 ? potstill::kernels::KvType::kByte : potstill::kernels::KvType::kHalf;
    model = new potstill_edge_model{potstill::edge::EdgeModel(
        required(path, "path"),
        {.threads = options.threads, .context = options.context, .activations = mode, .kv_cache = cache})};
  });
  return model;
}

void potstill_edge_free(potstill_edge_model* model) { delete model; }

int64_t potstill_edge_vocabulary_size(const potstill_edge_model* model) { return model->model.config().vocab_size; }
int64_t potstill_edge_context(const potstill_edge_model* model) { return model->model.cache().capacity(); }

int64_t potstill_edge_tokenize(const potstill_edge_model* model, const char* text, int32_t* ids, size_t capacity) {
  int64_t count = -1;
  guarded([&] {
    const auto tokens = required(model, "model")->model.package().tokenizer->encode(required(text, "text"));
    count = copy_out(tokens, ids, capacity);
  });
  return count;
}

int64_t potstill_edge_detokenize(const potstill_edge_model* model, const int32_t* ids, size_t num_ids, char* text,
                                 size_t capacity) {
  int64_t count = -1;
  guarded([&] {
    const auto& tokenizer = *required(model, "model")->model.package().tokenizer;
    if (num_ids > 0) required(ids, "ids");
    for (size_t i = 0; i < num_ids; ++i) {
      if (ids[i] < 0 || ids[i] >= tokenizer.size()) {
        throw Error(ErrorKind::kUsage, "ids",
                    std::to_string(ids[i]) + " is outside the vocabulary of " + std::to_string(tokenizer.size()));
      }
    }
    count = copy_out(tokenizer.decode_bytes({ids, num_ids}), text, capacity);
  });
  return count;
}

potstill_edge_status potstill_edge_generate(potstill_edge_model* model, const char* prompt,
                                            const potstill_edge_sampling* sampling, potstill_edge_on_text on_text,
                                            void* user) {
  return guarded([&] {
    auto request = request_of(sampling);
    request.prompt = required(prompt, "prompt");
    generate(model, request, on_text, user);
  });
}

potstill_edge_status potstill_edge_chat(potstill_edge_model* model, const potstill_edge_message* messages,
                                        size_t num_messages, const potstill_edge_sampling* sampling,
                                        potstill_edge_on_text on_text, void* user) {
  return guarded([&] {
    auto request = request_of(sampling);
    for (size_t i = 0; i < num_messages; ++i) {
      const potstill_edge_message& message = required(messages, "messages")[i];
      request.messages.push_back({required(message.role, "role"), required(message.content, "content")});
    }
    if (request.messages.empty()) throw Error(ErrorKind::kUsage, "messages", "are none", "give at least one");
    generate(model, request, on_text, user);
  });
}

}  // extern "C"
