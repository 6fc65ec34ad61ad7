/* Classifies one input with a .edgeq model:
 *
 *   cc -std=c99 example.c -L. -ledgeq -o example
 *   LD_LIBRARY_PATH=. ./example model.edgeq input.f32
 *
 * input.f32 holds the model's first input as raw float32 in the machine's byte order (numpy:
 * x.tofile("input.f32")). Without it, the input is zeros. The five largest values of each output are printed.
 */
#include <stdio.h>
#include <stdlib.h>

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

/* Prints the indices and values of the five largest. */
static void print_largest(const char* name, const float* values, int64_t count) {
  int64_t printed[5];
  int shown, k;
  for (shown = 0; shown < 5 && shown < count; ++shown) {
    int64_t best = -1, i;
    for (i = 0; i < count; ++i) {
      int taken = 0;
      for (k = 0; k < shown; ++k) taken |= printed[k] == i;
      if (!taken && (best < 0 || values[i] > values[best])) best = i;
    }
    printf("%s[%ld] = %.9g\n", name, (long)best, (double)values[best]);
    printed[shown] = best;
  }
}

static int classify(edgeq_session* session, const char* input_path) {
  const size_t count = edgeq_output_count(session);
  edgeq_tensor in, out;
  edgeq_input input;
  edgeq_output* outputs;
  float* x = NULL;
  size_t i;
  int status = 1;

  if (edgeq_input_count(session) != 1) {
    fprintf(stderr, "this example is for models with one input\n");
    return 1;
  }
  if (edgeq_input_info(session, 0, &in) != EDGEQ_OK) return failed("input");
  x = calloc((size_t)in.elements, sizeof(float));
  outputs = calloc(count, sizeof *outputs);
  if (x == NULL || outputs == NULL) {
    fprintf(stderr, "out of memory\n");
    goto done;
  }
  if (input_path != NULL && read_values(input_path, x, (size_t)in.elements) != 0) goto done;
  input.data = x;
  input.bytes = (size_t)in.elements * sizeof(float);
  input.type = EDGEQ_FLOAT32;
  for (i = 0; i < count; ++i) {
    if (edgeq_output_info(session, i, &out) != EDGEQ_OK) {
      failed("output");
      goto done;
    }
    outputs[i].bytes = (size_t)out.elements * sizeof(float);
    outputs[i].type = EDGEQ_FLOAT32;
    outputs[i].data = malloc(outputs[i].bytes);
    if (outputs[i].data == NULL) {
      fprintf(stderr, "out of memory\n");
      goto done;
    }
  }

  if (edgeq_run(session, &input, 1, outputs, count, 1) != EDGEQ_OK) {
    failed("run");
    goto done;
  }
  for (i = 0; i < count; ++i) {
    if (edgeq_output_info(session, i, &out) == EDGEQ_OK)
      print_largest(out.name, outputs[i].data, out.elements);
  }
  status = 0;

done:
  for (i = 0; outputs != NULL && i < count; ++i) free(outputs[i].data);
  free(outputs);
  free(x);
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
