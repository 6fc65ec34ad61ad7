#include "runner/session_options.h"

#include "ops/check.h"
#include "runner/machine.h"
#include "runner/npy.h"

namespace edgeq {

Result<std::unique_ptr<Session>> open_session(const Options& options, const std::string& path,
                                              bool keep_all) {
  SessionOptions session;
  const auto threads = options.integer("--threads", 1, 0, ThreadPool::kMaxThreads);
  EDGEQ_RETURN_IF_ERROR(threads.status());
  session.threads = static_cast<int>(threads.value());
  session.max_isa = options.text("--isa");
  session.keep_all = keep_all;
  if (options.has("--cpus")) {
    const auto cpus = parse_cpus(options.text("--cpus"));
    EDGEQ_RETURN_IF_ERROR(cpus.status());
    // Before the session starts its threads, which inherit it.
    EDGEQ_RETURN_IF_ERROR(pin_process(cpus.value()));
  }
  auto loaded = Session::load(path, session);
  if (loaded.ok()) return loaded;
  const Status& status = loaded.status();
  const bool named =
      status.message().find(path) != std::string::npos || status.code() == StatusCode::kInvalidArgument;
  return Status(status.code(), named ? status.message() : path + ": " + status.message());
}

int64_t elements_of(const EndInfo& end) {
  int64_t count = 1;
  for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= end.shape[axis];
  return count;
}

std::string end_text(const EndInfo& end) {
  std::string text =
      end.name + " " + array_text(end.is_float ? NpyType::kFloat32 : NpyType::kInt8, end.shape);
  if (!end.is_float)
    text +=
        format(", scale %.6g, zero point %d%s", end.scale, end.zero_point, end.bits == 4 ? ", 4 bits" : "");
  return text;
}

}  // namespace edgeq
