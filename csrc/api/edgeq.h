/* edgeq: runs .edgeq models from C, or from any language that calls C.
 *
 *   edgeq_session* session = NULL;
 *   if (edgeq_load_file("model.edgeq", NULL, &session) != EDGEQ_OK) { puts(edgeq_error()); return 1; }
 *   edgeq_input in = {pixels, sizeof pixels, EDGEQ_FLOAT32};
 *   edgeq_output out = {logits, sizeof logits, EDGEQ_FLOAT32};
 *   if (edgeq_run(session, &in, 1, &out, 1, 1) != EDGEQ_OK) { puts(edgeq_error()); return 1; }
 *   edgeq_close(session);
 *
 * Every function that can fail returns an edgeq_status, and edgeq_error() then says what is wrong and what to
 * do about it; nothing that the function was given has changed. No function prints, exits, throws or changes
 * the process's signal handlers. example.c is a whole program.
 *
 * Threads: calls with different sessions do not disturb each other. edgeq_run and edgeq_run_images of one
 * session may be called from any thread, and wait for each other; edgeq_close must be the last call.
 */
#ifndef EDGEQ_H_
#define EDGEQ_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(EDGEQ_BUILD)
#define EDGEQ_API __attribute__((visibility("default")))
#else
#define EDGEQ_API
#endif

typedef enum edgeq_status {
  EDGEQ_OK = 0,
  EDGEQ_INVALID_ARGUMENT = 1, /* a null pointer, an index, a size or a value that cannot be */
  EDGEQ_INVALID_MODEL = 2,    /* the file is damaged, or no .edgeq file */
  EDGEQ_UNSUPPORTED = 3,      /* a well-formed file of a later version, or what this CPU cannot do */
  EDGEQ_IO = 4,               /* the operating system could not open, read or map the file */
  EDGEQ_OUT_OF_MEMORY = 5
} edgeq_status;

typedef enum edgeq_type {
  EDGEQ_FLOAT32 = 0, /* real values */
  EDGEQ_INT8 = 1     /* codes: real = (code - zero_point) * scale; a 4-bit code, -8 to 7, also takes a byte */
} edgeq_type;

/* A loaded model with its packed weights, its memory and its threads. */
typedef struct edgeq_session edgeq_session;

/* What may be chosen when a model is loaded. Fill it by edgeq_options_init, then change what should differ.
 */
typedef struct edgeq_options {
  size_t struct_bytes; /* set by edgeq_options_init: which fields the program was compiled with */
  int threads; /* 1 to 32; 0: as many as the process may use, at most 16. Results do not depend on it. */
  const char*
      max_isa; /* highest instruction set to use, such as "neon"; NULL: what EDGEQ_MAX_ISA says, else all */
  uint64_t max_memory_bytes; /* for weights and activations together */
} edgeq_options;

/* An input or output of a model. The pointers belong to the session and are valid until it is closed. */
typedef struct edgeq_tensor {
  const char* name;
  const int64_t*
      shape; /* of the caller's array, `rank` extents in the source model's layout; the batch, first, is -1 */
  size_t rank;
  int64_t elements; /* of one image: the product of the extents but the batch */
  int32_t bits;     /* of a code, 8 or 4; 0 for a tensor that is float32 and has no codes */
  float scale;      /* of the codes; 0 where there are none */
  int32_t zero_point;
} edgeq_tensor;

/* An array that the caller owns: contiguous, the batch first. */
typedef struct edgeq_input {
  const void* data;
  size_t bytes; /* exactly batch * elements * (4 for EDGEQ_FLOAT32, 1 for EDGEQ_INT8) */
  edgeq_type type;
} edgeq_input;

typedef struct edgeq_output {
  void* data;   /* is written */
  size_t bytes; /* as above */
  edgeq_type type;
} edgeq_output;

/* The library's version, such as "0.1.0". Never NULL; never freed. */
EDGEQ_API const char* edgeq_version(void);

/* One or two sentences on the last call in this thread that did not return EDGEQ_OK; "" before any. The text
 * belongs to the library and stays until the next failure in the same thread. */
EDGEQ_API const char* edgeq_error(void);

/* Sets every field to its default: one thread, every instruction set of this CPU, 4 GiB. NULL is ignored.
 * `struct_bytes` is sizeof(edgeq_options): a later library reads no further. */
EDGEQ_API void edgeq_options_init(edgeq_options* options, size_t struct_bytes);

/* Loads a .edgeq file. It is checked entirely, so a hostile one gives an error and nothing worse, and it is
 * not needed afterwards. `options` may be NULL. On success *session is a new session, which the caller
 * closes; on failure NULL. Errors: EDGEQ_IO, EDGEQ_INVALID_MODEL, EDGEQ_UNSUPPORTED, EDGEQ_OUT_OF_MEMORY
 * (also beyond max_memory_bytes), EDGEQ_INVALID_ARGUMENT for NULL and for options out of range. */
EDGEQ_API edgeq_status edgeq_load_file(const char* path, const edgeq_options* options,
                                       edgeq_session** session);

/* The same for the bytes of such a file in memory, which the caller keeps and may free as soon as this
 * returns. They are copied meanwhile unless they are aligned to 64 bytes. */
EDGEQ_API edgeq_status edgeq_load_memory(const void* data, size_t bytes, const edgeq_options* options,
                                         edgeq_session** session);

/* Frees a session, its threads and all that it has given out. NULL is ignored. */
EDGEQ_API void edgeq_close(edgeq_session* session);

/* How many inputs and outputs the model has; 0 for NULL. */
EDGEQ_API size_t edgeq_input_count(const edgeq_session* session);
EDGEQ_API size_t edgeq_output_count(const edgeq_session* session);

/* Describes an input or output; the first has index 0.
 * Errors: EDGEQ_INVALID_ARGUMENT for NULL and for an index beyond the last. */
EDGEQ_API edgeq_status edgeq_input_info(const edgeq_session* session, size_t index, edgeq_tensor* info);
EDGEQ_API edgeq_status edgeq_output_info(const edgeq_session* session, size_t index, edgeq_tensor* info);

/* How many threads the session computes with; 0 for NULL. */
EDGEQ_API int edgeq_threads(const edgeq_session* session);

/* Computes `batch` (1 or more) images: an edgeq_input for each input of the model, an edgeq_output for each
 * output, in the model's order. The first run of a batch size plans memory; later ones allocate none. Nothing
 * is kept of the arrays. Errors: EDGEQ_INVALID_ARGUMENT for NULL, for a wrong count, type or size, for 4-bit
 * codes outside -8 to 7; EDGEQ_OUT_OF_MEMORY. After an error the outputs are undefined, and the session can
 * still be used. */
EDGEQ_API edgeq_status edgeq_run(edgeq_session* session, const edgeq_input* inputs, size_t input_count,
                                 const edgeq_output* outputs, size_t output_count, int64_t batch);

/* The size of the uint8 images that edgeq_run_images takes: height, width, and channels (1: grey, 3: RGB).
 * Errors: EDGEQ_INVALID_ARGUMENT for NULL; EDGEQ_UNSUPPORTED if the model takes no images, and why. */
EDGEQ_API edgeq_status edgeq_image_size(const edgeq_session* session, int64_t* height, int64_t* width,
                                        int64_t* channels);

/* edgeq_run for uint8 images [batch][height][width][channels], `bytes` in all, as a camera or a decoder gives
 * them. The file knows how they are normalised; the results are those of the normalised float32 images.
 * Errors: those of edgeq_run and edgeq_image_size. */
EDGEQ_API edgeq_status edgeq_run_images(edgeq_session* session, const uint8_t* images, size_t bytes,
                                        const edgeq_output* outputs, size_t output_count, int64_t batch);

#ifdef __cplusplus
}
#endif

#endif /* EDGEQ_H_ */
