/* The C API, from C: what it computes for MODEL.edgeq..., and what it says to callers who err.
 *
 * usage: api_test MODEL.edgeq...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgeq.h"

static int g_failures = 0;

#define EXPECT(condition, text)                                                 \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, text); \
      ++g_failures;                                                             \
    }                                                                           \
  } while (0)

#define EXPECT_ERROR(expected, call, word)                      \
  do {                                                          \
    EXPECT((call) == (expected), edgeq_error());                \
    EXPECT(strstr(edgeq_error(), word) != NULL, edgeq_error()); \
  } while (0)

static void* read_file(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  long size = 0;
  void* data = NULL;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0 &&
      fseek(file, 0, SEEK_SET) == 0) {
    data = malloc((size_t)size);
    if (data != NULL && fread(data, 1, (size_t)size, file) != (size_t)size) {
      free(data);
      data = NULL;
    }
  }
  if (file != NULL) fclose(file);
  *bytes = (size_t)size;
  return data;
}

static void* array(int64_t elements, size_t size) {
  void* data = calloc((size_t)elements, size);
  if (data == NULL) abort();
  return data;
}

/* The arrays of every output of a session, for `batch` images. */
static edgeq_output* make_outputs(const edgeq_session* session, edgeq_type type, int64_t batch) {
  const size_t count = edgeq_output_count(session);
  edgeq_output* outputs = array((int64_t)count, sizeof *outputs);
  size_t i;
  for (i = 0; i < count; ++i) {
    edgeq_tensor out;
    EXPECT(edgeq_output_info(session, i, &out) == EDGEQ_OK, edgeq_error());
    /* What has no codes is asked for in float32. */
    outputs[i].type = out.bits == 0 ? EDGEQ_FLOAT32 : type;
    outputs[i].bytes =
        (size_t)(batch * out.elements) * (outputs[i].type == EDGEQ_FLOAT32 ? sizeof(float) : 1);
    outputs[i].data = array((int64_t)outputs[i].bytes, 1);
  }
  return outputs;
}

static void free_outputs(edgeq_output* outputs, size_t count) {
  size_t i;
  for (i = 0; i < count; ++i) free(outputs[i].data);
  free(outputs);
}

static void test_run(edgeq_session* session, edgeq_session* other) {
  enum { kBatch = 3 };
  const size_t count = edgeq_output_count(session);
  edgeq_tensor in, out;
  float* x;
  int8_t* codes;
  edgeq_input input;
  edgeq_output *outputs, *singles, *coded;
  size_t k;
  int64_t i, image;
  int different = 0;

  EXPECT(edgeq_input_count(session) == 1 && count >= 1, "golden models have one input");
  EXPECT(edgeq_input_info(session, 0, &in) == EDGEQ_OK, edgeq_error());
  EXPECT(in.rank >= 2 && in.shape[0] == -1 && in.elements > 0 && in.scale > 0 && in.name[0] != '\0', in.name);
  for (k = 1, image = 1; k < in.rank; ++k) image *= in.shape[k];
  EXPECT(image == in.elements, "elements are the product of the extents");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_input_info(session, 1, &in), "index 1");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_output_info(session, 70, &in), "index 70");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_input_info(session, 0, NULL), "NULL");

  /* Real values that are codes exactly, so that both types of input mean the same. */
  x = array(kBatch * in.elements, sizeof *x);
  codes = array(kBatch * in.elements, 1);
  for (i = 0; i < kBatch * in.elements; ++i) {
    codes[i] = (int8_t)((i * 7 + i / in.elements) % (1 << in.bits) - (1 << (in.bits - 1)));
    x[i] = (float)(codes[i] - in.zero_point) * in.scale;
  }

  /* A batch from one session, the images one by one from the other. */
  input.data = x;
  input.bytes = (size_t)(kBatch * in.elements) * sizeof *x;
  input.type = EDGEQ_FLOAT32;
  outputs = make_outputs(session, EDGEQ_FLOAT32, kBatch);
  singles = make_outputs(session, EDGEQ_FLOAT32, 1);
  EXPECT(edgeq_run(session, &input, 1, outputs, count, kBatch) == EDGEQ_OK, edgeq_error());
  for (image = 0; image < kBatch; ++image) {
    edgeq_input one = {NULL, 0, EDGEQ_FLOAT32};
    one.data = x + image * in.elements;
    one.bytes = (size_t)in.elements * sizeof *x;
    EXPECT(edgeq_run(other, &one, 1, singles, count, 1) == EDGEQ_OK, edgeq_error());
    for (k = 0; k < count; ++k) {
      const char* of_batch = (const char*)outputs[k].data + (size_t)image * singles[k].bytes;
      EXPECT(memcmp(of_batch, singles[k].data, singles[k].bytes) == 0, "a batch gives what its images give");
    }
  }

  coded = make_outputs(session, EDGEQ_INT8, kBatch);
  input.data = codes;
  input.bytes = (size_t)(kBatch * in.elements);
  input.type = EDGEQ_INT8;
  EXPECT(edgeq_run(session, &input, 1, coded, count, kBatch) == EDGEQ_OK, edgeq_error());
  for (k = 0; k < count; ++k) {
    const float* real = outputs[k].data;
    const int8_t* code = coded[k].data;
    EXPECT(edgeq_output_info(session, k, &out) == EDGEQ_OK, edgeq_error());
    for (i = 0; i < kBatch * out.elements; ++i) {
      if (out.bits != 0) EXPECT((float)(code[i] - out.zero_point) * out.scale == real[i], out.name);
      different |= real[i] != real[0];
    }
  }
  EXPECT(different, "some output is not one value everywhere");
  input.data = x;
  input.bytes = (size_t)(kBatch * in.elements) * sizeof *x;
  input.type = EDGEQ_FLOAT32;

  /* What callers get wrong. */
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(NULL, &input, 1, outputs, count, kBatch), "session");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, NULL, 1, outputs, count, kBatch), "inputs");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, NULL, count, kBatch), "outputs");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 2, outputs, count, kBatch),
               "1 inputs, not 2");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, 0, kBatch), "outputs, not 0");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, 0), "at least one");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, kBatch + 1), "bytes");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, INT64_MAX), "bytes");
  input.bytes -= 1;
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, kBatch), "bytes");
  input.bytes += 1;
  input.type = (edgeq_type)9;
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, kBatch), "type");
  input.type = EDGEQ_FLOAT32;
  input.data = NULL;
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run(session, &input, 1, outputs, count, kBatch), "null");
  input.data = x;
  EXPECT(edgeq_run(session, &input, 1, outputs, count, kBatch) == EDGEQ_OK, "a session outlives errors");

  free_outputs(outputs, count);
  free_outputs(singles, count);
  free_outputs(coded, count);
  free(x);
  free(codes);
}

static void test_images(edgeq_session* session) {
  const size_t count = edgeq_output_count(session);
  edgeq_output* outputs = make_outputs(session, EDGEQ_FLOAT32, 1);
  int64_t height = 0, width = 0, channels = 0;
  const edgeq_status takes = edgeq_image_size(session, &height, &width, &channels);
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_image_size(session, NULL, &width, &channels), "NULL");
  if (takes == EDGEQ_OK) {
    uint8_t* images = array(height * width * channels, 1);
    EXPECT(height > 0 && width > 0 && (channels == 1 || channels == 3), "the size of an image");
    EXPECT(
        edgeq_run_images(session, images, (size_t)(height * width * channels), outputs, count, 1) == EDGEQ_OK,
        edgeq_error());
    EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_run_images(session, images, 1, outputs, count, 1),
                 "1 bytes are not");
    free(images);
  } else {
    const uint8_t pixel = 0;
    EXPECT_ERROR(EDGEQ_UNSUPPORTED, edgeq_run_images(session, &pixel, 1, outputs, count, 1), "uint8 images");
  }
  free_outputs(outputs, count);
}

static void test_model(const char* path) {
  edgeq_session* from_file = NULL;
  edgeq_session* from_memory = NULL;
  edgeq_session* none = (edgeq_session*)&from_file;
  edgeq_options options;
  size_t bytes = 0;
  unsigned char* data = read_file(path, &bytes);
  EXPECT(data != NULL, path);
  if (data == NULL) return;

  EXPECT(edgeq_load_file(path, NULL, &from_file) == EDGEQ_OK, edgeq_error());
  EXPECT(edgeq_threads(from_file) == 1, "one thread unless asked");
  edgeq_options_init(&options, sizeof options);
  EXPECT(options.threads == 1 && options.max_isa == NULL && options.max_memory_bytes > 0, "defaults");
  options.threads = 2;
  options.max_isa = "scalar";
  EXPECT(edgeq_load_memory(data, bytes, &options, &from_memory) == EDGEQ_OK, edgeq_error());
  EXPECT(edgeq_threads(from_memory) == 2, "as many threads as asked");

  options.threads = 99;
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_memory(data, bytes, &options, &none), "threads");
  EXPECT(none == NULL, "a failed load gives no session");
  edgeq_options_init(&options, sizeof options);
  options.max_isa = "mmx";
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_memory(data, bytes, &options, &none), "mmx");
  edgeq_options_init(&options, sizeof options);
  options.max_memory_bytes = 1000;
  EXPECT_ERROR(EDGEQ_OUT_OF_MEMORY, edgeq_load_memory(data, bytes, &options, &none), "memory");
  memset(&options, 0, sizeof options);
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_memory(data, bytes, &options, &none), "edgeq_options_init");
  EXPECT(edgeq_load_memory(data, bytes / 2, NULL, &none) == EDGEQ_INVALID_MODEL, edgeq_error());
  EXPECT(edgeq_error()[0] != '\0', "an error has a text");
  data[bytes / 2] ^= 0x40;
  EXPECT(edgeq_load_memory(data, bytes, NULL, &none) == EDGEQ_INVALID_MODEL, edgeq_error());
  free(data); /* the session keeps nothing of it */

  if (from_file != NULL && from_memory != NULL) {
    test_run(from_file, from_memory);
    test_images(from_file);
  }
  edgeq_close(from_file);
  edgeq_close(from_memory);
}

int main(int argc, char** argv) {
  edgeq_session* session = NULL;
  edgeq_options options;
  int i;
  EXPECT(strcmp(edgeq_error(), "") == 0, "no error before any call");
  EXPECT(edgeq_version()[0] >= '0' && edgeq_version()[0] <= '9', edgeq_version());
  EXPECT_ERROR(EDGEQ_IO, edgeq_load_file("/nowhere/model.edgeq", NULL, &session), "/nowhere/model.edgeq");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_file(NULL, NULL, &session), "path is NULL");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_file("x", NULL, NULL), "session is NULL");
  EXPECT_ERROR(EDGEQ_INVALID_ARGUMENT, edgeq_load_memory(NULL, 3, NULL, &session), "data is NULL");
  EXPECT(edgeq_input_count(NULL) == 0 && edgeq_output_count(NULL) == 0 && edgeq_threads(NULL) == 0,
         "of nothing");
  edgeq_close(NULL);
  edgeq_options_init(NULL, sizeof options);
  /* A program that was compiled with an older, smaller structure. */
  memset(&options, 0x5a, sizeof options);
  edgeq_options_init(&options, offsetof(edgeq_options, max_isa));
  EXPECT(options.struct_bytes == offsetof(edgeq_options, max_isa) && options.threads == 1,
         "its fields are set");
  EXPECT(options.max_memory_bytes == 0x5a5a5a5a5a5a5a5aULL, "and no others");
  for (i = 1; i < argc; ++i) test_model(argv[i]);
  if (argc < 2) {
    fprintf(stderr, "usage: api_test MODEL.edgeq...\n");
    return 2;
  }
  printf("%s\n", g_failures == 0 ? "PASSED" : "FAILED");
  return g_failures == 0 ? 0 : 1;
}
