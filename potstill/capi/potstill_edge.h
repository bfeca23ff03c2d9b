/* potstill_edge.h: the edge runtime for C programs. A stable ABI: functions and fields are added, never changed.
 *
 *   potstill_edge_options options = potstill_edge_default_options();
 *   potstill_edge_model* model = potstill_edge_load("student.gguf", &options);
 *   if (!model) { fprintf(stderr, "%s\n", potstill_edge_error()); return 1; }
 *   potstill_edge_generate(model, "The capital of France is", NULL, print_piece, NULL);
 *   potstill_edge_free(model);
 *
 * Strings are UTF-8 and end with a zero. Nothing throws; nothing prints. A model is used by one thread at a time;
 * several models may be used side by side. */
#ifndef POTSTILL_EDGE_H
#define POTSTILL_EDGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(POTSTILL_EDGE_BUILD)
#define POTSTILL_EDGE_API __attribute__((visibility("default")))
#else
#define POTSTILL_EDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct potstill_edge_model potstill_edge_model;

/* What a call returns: 0, or what went wrong; potstill_edge_error() has the sentence. */
typedef enum potstill_edge_status {
  POTSTILL_EDGE_OK = 0,
  POTSTILL_EDGE_USAGE = 2,  /* an argument */
  POTSTILL_EDGE_FORMAT = 3, /* a file that is broken or of a kind that is not supported */
  POTSTILL_EDGE_IO = 4,     /* a file that cannot be read */
  POTSTILL_EDGE_MEMORY = 7, /* not enough */
  POTSTILL_EDGE_OTHER = 1
} potstill_edge_status;

/* size is sizeof the struct as the caller knows it, so that a newer library reads an older caller's. Get them from the
 * functions below, which fill it in. */
typedef struct potstill_edge_options {
  size_t size;
  int32_t threads;         /* 0: one a processor */
  int32_t eight_bit;       /* 1: activations in 8 bits instead of 16; faster in prompts, a little less exact */
  int64_t context;         /* positions for prompt and answer; 0: the model's own maximum */
  int64_t eight_bit_cache; /* 1: keys and values in 8 bits instead of 16: half their memory */
} potstill_edge_options;

typedef struct potstill_edge_sampling {
  size_t size;
  int64_t max_tokens;
  double temperature;        /* 0: always the likeliest token */
  double top_p;              /* 1: all */
  double min_p;              /* 0: all */
  double repetition_penalty; /* 1: none */
  int64_t top_k;             /* 0: all */
  uint64_t seed;
  const char* const* stop; /* strings that end the answer, or NULL */
  size_t num_stop;
} potstill_edge_sampling;

POTSTILL_EDGE_API potstill_edge_options potstill_edge_default_options(void);
POTSTILL_EDGE_API potstill_edge_sampling potstill_edge_default_sampling(void); /* greedy, 256 tokens */

/* "0.1.0" */
POTSTILL_EDGE_API const char* potstill_edge_version(void);
/* What went wrong in this thread's last call that failed; "" when none has. Valid until the next call that fails. */
POTSTILL_EDGE_API const char* potstill_edge_error(void);

/* Maps a GGUF file. options may be NULL. NULL on failure. */
POTSTILL_EDGE_API potstill_edge_model* potstill_edge_load(const char* path, const potstill_edge_options* options);
POTSTILL_EDGE_API void potstill_edge_free(potstill_edge_model* model); /* NULL is fine */

POTSTILL_EDGE_API int64_t potstill_edge_vocabulary_size(const potstill_edge_model* model);
POTSTILL_EDGE_API int64_t potstill_edge_context(const potstill_edge_model* model);

/* Writes up to `capacity` ids of text and returns how many there are (call again with more room when it is larger), or
 * -1 on failure. Special tokens that are written out ("<|im_end|>") become theirs. */
POTSTILL_EDGE_API int64_t potstill_edge_tokenize(const potstill_edge_model* model, const char* text, int32_t* ids,
                                                 size_t capacity);
/* The bytes of some ids, likewise; they need not be whole UTF-8 and have no zero at the end. */
POTSTILL_EDGE_API int64_t potstill_edge_detokenize(const potstill_edge_model* model, const int32_t* ids, size_t num_ids,
                                                   char* text, size_t capacity);

/* Called with each piece of the answer, whole UTF-8 characters, [length] bytes and no zero at the end. Returns 0 to
 * stop the answer, anything else to go on. */
typedef int (*potstill_edge_on_text)(const char* piece, size_t length, void* user);

/* Continues a text. sampling may be NULL (the defaults), on_text too. */
POTSTILL_EDGE_API potstill_edge_status potstill_edge_generate(potstill_edge_model* model, const char* prompt,
                                                              const potstill_edge_sampling* sampling,
                                                              potstill_edge_on_text on_text, void* user);

typedef struct potstill_edge_message {
  const char* role; /* "system", "user" or "assistant" */
  const char* content;
} potstill_edge_message;

/* Answers a conversation through the model's own template. What it shares with the last call is not computed again. */
POTSTILL_EDGE_API potstill_edge_status potstill_edge_chat(potstill_edge_model* model,
                                                          const potstill_edge_message* messages, size_t num_messages,
                                                          const potstill_edge_sampling* sampling,
                                                          potstill_edge_on_text on_text, void* user);

#ifdef __cplusplus
}
#endif

#endif
