/* A question to a model, answered as it comes:
 *   cc example.c -lpotstill_edge -o ask && ./ask student.gguf "Why does ice float?" */
#include <potstill_edge.h>
#include <stdio.h>

static int print_piece(const char* piece, size_t length, void* user) {
  (void)user;
  fwrite(piece, 1, length, stdout);
  fflush(stdout);
  return 1; /* go on */
}

int main(int argc, char** argv) {
  potstill_edge_model* model;
  potstill_edge_sampling sampling = potstill_edge_default_sampling();
  potstill_edge_message question = {"user", NULL};
  potstill_edge_status status;
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.gguf QUESTION\n", argv[0]);
    return POTSTILL_EDGE_USAGE;
  }
  model = potstill_edge_load(argv[1], NULL);
  if (model == NULL) {
    fprintf(stderr, "error: %s\n", potstill_edge_error());
    return POTSTILL_EDGE_OTHER;
  }
  sampling.max_tokens = 64;
  question.content = argv[2];
  status = potstill_edge_chat(model, &question, 1, &sampling, print_piece, NULL);
  printf("\n");
  if (status != POTSTILL_EDGE_OK) fprintf(stderr, "error: %s\n", potstill_edge_error());
  potstill_edge_free(model);
  return (int)status;
}
