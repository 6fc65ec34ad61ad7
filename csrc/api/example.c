/* Classifies one input with a .edgeq model:
 *
 *   cc -std=c99 example.c -L. -ledgeq -o example
 *   LD_LIBRARY_PATH=. ./example model.edgeq input.f32
 *
 * input.f32 holds the model's first input as raw float32 in the machine's byte order (numpy: x.tofile("input.f32")).
 * Without it, the input is zeros. The five largest outputs are printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgeq.h"

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, edgeq_error());
  return 1;
}

/* Fills `values` from a file of exactly that many float32; 0 on success. */
static int read_values(const char* path, float* values, size_t count) {
  FILE* file = fopen(path, "rb");
  size_t found;
  if (file == NULL) {
    fprintf(stderr, "%s: cannot be opened\n", path);
    return 1;
  }
  found = fread(values, sizeof(float), count, file);
  if (found != count || fgetc(file) != EOF) {
    fprintf(stderr, "%s: does not hold %lu float32 values\n", path, (unsigned long)count);
    fclose(file);
    return 1;
  }
  fclose(file);
  return 0;
}

static int classify(edgeq_session* session, const char* input_path) {
  edgeq_tensor in, out;
  edgeq_input input;
  edgeq_output output;
  float* x = NULL;
  float* y = NULL;
  int rank, status = 1;

  if (edgeq_input_count(session) != 1 || edgeq_output_count(session) != 1) {
    fprintf(stderr, "this example is for models with one input and one output\n");
    return 1;
  }
  if (edgeq_input_info(session, 0, &in) != EDGEQ_OK) return failed("input");
  if (edgeq_output_info(session, 0, &out) != EDGEQ_OK) return failed("output");

  x = calloc((size_t)in.elements, sizeof(float));
  y = calloc((size_t)out.elements, sizeof(float));
  if (x == NULL || y == NULL) {
    fprintf(stderr, "out of memory\n");
    goto done;
  }
  if (input_path != NULL && read_values(input_path, x, (size_t)in.elements) != 0) goto done;

  input.data = x;
  input.bytes = (size_t)in.elements * sizeof(float);
  input.type = EDGEQ_FLOAT32;
  output.data = y;
  output.bytes = (size_t)out.elements * sizeof(float);
  output.type = EDGEQ_FLOAT32;
  if (edgeq_run(session, &input, 1, &output, 1, 1) != EDGEQ_OK) {
    failed("run");
    goto done;
  }

  for (rank = 0; rank < 5 && rank < out.elements; ++rank) {
    int64_t best = -1, i;
    for (i = 0; i < out.elements; ++i) {
      /* What has been printed is marked by NaN, which is unequal to itself. */
      if (y[i] == y[i] && (best < 0 || y[i] > y[best])) best = i;
    }
    if (best < 0) break;
    printf("%ld %.9g\n", (long)best, (double)y[best]);
    memset(&y[best], 0xff, sizeof(float));
  }
  status = 0;

done:
  free(x);
  free(y);
  return status;
}

int main(int argc, char** argv) {
  edgeq_session* session = NULL;
  edgeq_options options;
  int status;

  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: %s model.edgeq [input.f32]   (edgeq %s)\n", argv[0], edgeq_version());
    return 2;
  }
  edgeq_options_init(&options, sizeof options);
  options.threads = 0; /* as many as this process may use */
  if (edgeq_load_file(argv[1], &options, &session) != EDGEQ_OK) return failed(argv[1]);
  status = classify(session, argc > 2 ? argv[2] : NULL);
  edgeq_close(session);
  return status;
}
