// The C API: checks what it is given, and lets no exception out.
#include "api/edgeq.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "ops/check.h"
#include "runtime/session.h"

struct edgeq_session {
  std::unique_ptr<edgeq::Session> session;
};

namespace edgeq {
namespace {

thread_local std::string last_error;

edgeq_status code_of(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return EDGEQ_OK;
    case StatusCode::kInvalidArgument:
      return EDGEQ_INVALID_ARGUMENT;
    case StatusCode::kInvalidModel:
      return EDGEQ_INVALID_MODEL;
    case StatusCode::kUnsupported:
      return EDGEQ_UNSUPPORTED;
    case StatusCode::kIo:
      return EDGEQ_IO;
    case StatusCode::kOutOfMemory:
      break;
  }
  return EDGEQ_OUT_OF_MEMORY;
}

edgeq_status fail(const Status& status) {
  // Where even the text finds no memory, the code has to do.
  try {
    last_error = status.message();
  } catch (const std::exception&) {
    last_error.clear();
  }
  return code_of(status.code());
}

/// Calls body() -> Status. What is thrown below is a want of memory.
template <typename Body>
edgeq_status guarded(Body body) {
  try {
    const Status status = body();
    return status.ok() ? EDGEQ_OK : fail(status);
  } catch (const std::exception&) {
    return fail(Status(StatusCode::kOutOfMemory, "out of memory"));  // short: needs no allocation
  }
}

Status null_argument(const char* what) { return Status::invalid_argument(std::string(what) + " is NULL"); }

/// `load(options)` into *out.
template <typename Load>
edgeq_status load_session(const edgeq_options* options, edgeq_session** out, Load load) {
  if (out != nullptr) *out = nullptr;
  return guarded([&] {
    if (out == nullptr) return null_argument("session");
    edgeq_options chosen;
    edgeq_options_init(&chosen, sizeof chosen);
    if (options != nullptr) {
      if (options->struct_bytes < sizeof options->struct_bytes || options->struct_bytes > 4096) {
        return Status::invalid_argument("the options are not initialized; call edgeq_options_init first");
      }
      std::memcpy(&chosen, options, std::min(options->struct_bytes, sizeof chosen));
    }
    SessionOptions session_options;
    session_options.threads = chosen.threads;
    session_options.max_isa = chosen.max_isa == nullptr ? "" : chosen.max_isa;
    session_options.max_memory_bytes = chosen.max_memory_bytes;
    auto loaded = load(session_options);
    EDGEQ_RETURN_IF_ERROR(loaded.status());
    *out = new edgeq_session{std::move(loaded).value()};
    return Status();
  });
}

int64_t elements_of(const EndInfo& end) {
  int64_t count = 1;
  for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= end.shape[axis];
  return count;
}

edgeq_status describe(const edgeq_session* session, const char* kind, size_t index, edgeq_tensor* info) {
  return guarded([&] {
    if (session == nullptr) return null_argument("session");
    if (info == nullptr) return null_argument("info");
    const auto& ends = *kind == 'i' ? session->session->inputs() : session->session->outputs();
    if (index >= ends.size()) {
      return Status::invalid_argument(
          format("the model has %zu %ss; there is none of index %zu", ends.size(), kind, index));
    }
    const EndInfo& end = ends[index];
    *info = {
        end.name.c_str(), end.shape.data(), end.shape.size(), elements_of(end), end.is_float ? 0 : end.bits,
        end.scale,        end.zero_point};
    return Status();
  });
}

/// An array has exactly the bytes of `batch` images.
Status expect_bytes(const EndInfo& end, edgeq_type type, size_t bytes, int64_t batch) {
  if (type != EDGEQ_FLOAT32 && type != EDGEQ_INT8) {
    return Status::invalid_argument(end.name + ": the type is neither EDGEQ_FLOAT32 nor EDGEQ_INT8");
  }
  if (type == EDGEQ_INT8 && end.is_float) {
    return Status::invalid_argument(end.name + " is float32; it has no codes");
  }
  const uint64_t image = static_cast<uint64_t>(elements_of(end)) * (type == EDGEQ_FLOAT32 ? 4 : 1);
  // The division keeps a batch without bounds from overflowing.
  if (bytes % image != 0 || bytes / image != static_cast<uint64_t>(batch)) {
    return Status::invalid_argument(
        format("%s: the array has %zu bytes, and %lld images of %llu bytes are asked for", end.name.c_str(),
               bytes, static_cast<long long>(batch), static_cast<unsigned long long>(image)));
  }
  return Status();
}

Status expect_outputs(const Session& session, const edgeq_output* outputs, size_t count, int64_t batch,
                      std::vector<OutputArray>* arrays) {
  if (batch < 1) return Status::invalid_argument("a batch must hold at least one image");
  if (outputs == nullptr) return null_argument("outputs");
  if (count != session.outputs().size()) {
    return Status::invalid_argument(
        format("the model has %zu outputs, not %zu", session.outputs().size(), count));
  }
  for (size_t i = 0; i < count; ++i) {
    EDGEQ_RETURN_IF_ERROR(expect_bytes(session.outputs()[i], outputs[i].type, outputs[i].bytes, batch));
    arrays->push_back({outputs[i].data, outputs[i].type == EDGEQ_FLOAT32});
  }
  return Status();
}

}  // namespace
}  // namespace edgeq

using edgeq::Status;

const char* edgeq_version(void) { return EDGEQ_VERSION; }

const char* edgeq_error(void) { return edgeq::last_error.c_str(); }

void edgeq_options_init(edgeq_options* options, size_t struct_bytes) {
  if (options == nullptr) return;
  const edgeq::SessionOptions defaults;
  edgeq_options filled;
  std::memset(&filled, 0, sizeof filled);
  filled.struct_bytes = std::min(struct_bytes, sizeof filled);
  filled.threads = defaults.threads;
  filled.max_memory_bytes = defaults.max_memory_bytes;
  std::memcpy(options, &filled, filled.struct_bytes);
}

edgeq_status edgeq_load_file(const char* path, const edgeq_options* options, edgeq_session** session) {
  return edgeq::load_session(options, session, [&](const edgeq::SessionOptions& chosen) {
    using Loaded = edgeq::Result<std::unique_ptr<edgeq::Session>>;
    return path == nullptr ? Loaded(edgeq::null_argument("path"))
                           : edgeq::Session::load(std::string(path), chosen);
  });
}

edgeq_status edgeq_load_memory(const void* data, size_t bytes, const edgeq_options* options,
                               edgeq_session** session) {
  return edgeq::load_session(options, session, [&](const edgeq::SessionOptions& chosen) {
    using Loaded = edgeq::Result<std::unique_ptr<edgeq::Session>>;
    if (data == nullptr) return Loaded(edgeq::null_argument("data"));
    return edgeq::Session::load(static_cast<const uint8_t*>(data), bytes, chosen);
  });
}

void edgeq_close(edgeq_session* session) { delete session; }

size_t edgeq_input_count(const edgeq_session* session) {
  return session == nullptr ? 0 : session->session->inputs().size();
}

size_t edgeq_output_count(const edgeq_session* session) {
  return session == nullptr ? 0 : session->session->outputs().size();
}

edgeq_status edgeq_input_info(const edgeq_session* session, size_t index, edgeq_tensor* info) {
  return edgeq::describe(session, "input", index, info);
}

edgeq_status edgeq_output_info(const edgeq_session* session, size_t index, edgeq_tensor* info) {
  return edgeq::describe(session, "output", index, info);
}

int edgeq_threads(const edgeq_session* session) {
  return session == nullptr ? 0 : session->session->threads();
}

edgeq_status edgeq_run(edgeq_session* session, const edgeq_input* inputs, size_t input_count,
                       const edgeq_output* outputs, size_t output_count, int64_t batch) {
  return edgeq::guarded([&] {
    if (session == nullptr) return edgeq::null_argument("session");
    if (inputs == nullptr) return edgeq::null_argument("inputs");
    edgeq::Session& model = *session->session;
    std::vector<edgeq::OutputArray> results;
    EDGEQ_RETURN_IF_ERROR(edgeq::expect_outputs(model, outputs, output_count, batch, &results));
    if (input_count != model.inputs().size()) {
      return Status::invalid_argument(
          edgeq::format("the model has %zu inputs, not %zu", model.inputs().size(), input_count));
    }
    std::vector<edgeq::InputArray> arrays;
    for (size_t i = 0; i < input_count; ++i) {
      EDGEQ_RETURN_IF_ERROR(edgeq::expect_bytes(model.inputs()[i], inputs[i].type, inputs[i].bytes, batch));
      arrays.push_back({inputs[i].data, inputs[i].type == EDGEQ_FLOAT32});
    }
    return model.run(arrays, results, batch);
  });
}

edgeq_status edgeq_image_size(const edgeq_session* session, int64_t* height, int64_t* width,
                              int64_t* channels) {
  return edgeq::guarded([&] {
    if (session == nullptr) return edgeq::null_argument("session");
    if (height == nullptr || width == nullptr || channels == nullptr) return edgeq::null_argument("a result");
    const edgeq::Session& model = *session->session;
    if (!model.takes_images().ok()) {
      return Status::unsupported(model.takes_images().message());
    }
    *height = model.image_shape()[0];
    *width = model.image_shape()[1];
    *channels = model.image_shape()[2];
    return Status();
  });
}

edgeq_status edgeq_run_images(edgeq_session* session, const uint8_t* images, size_t bytes,
                              const edgeq_output* outputs, size_t output_count, int64_t batch) {
  int64_t shape[3] = {};
  const edgeq_status takes = edgeq_image_size(session, &shape[0], &shape[1], &shape[2]);
  if (takes != EDGEQ_OK) return takes;
  return edgeq::guarded([&] {
    edgeq::Session& model = *session->session;
    std::vector<edgeq::OutputArray> results;
    EDGEQ_RETURN_IF_ERROR(edgeq::expect_outputs(model, outputs, output_count, batch, &results));
    const uint64_t image = static_cast<uint64_t>(shape[0] * shape[1] * shape[2]);
    if (bytes % image != 0 || bytes / image != static_cast<uint64_t>(batch)) {
      return Status::invalid_argument(
          edgeq::format("%zu bytes are not %lld images of %lld x %lld x %lld", bytes,
                        static_cast<long long>(batch), static_cast<long long>(shape[0]),
                        static_cast<long long>(shape[1]), static_cast<long long>(shape[2])));
    }
    return model.run_images(images, results, batch);
  });
}
