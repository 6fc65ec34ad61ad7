// edgeq-runner dump: every activation of a run, to find the layer at which two machines, or a model and its
// float original, part.

#include <cstdio>
#include <utility>

#include "ops/check.h"
#include "runner/feeds.h"
#include "runner/json.h"
#include "runner/npy.h"
#include "runner/session_options.h"

namespace edgeq {
namespace {

/// "0007_layer_3_conv.npy": the number keeps the order and tells tensors apart whose names become the same.
std::string file_name(size_t index, const std::string& name) {
  std::string safe;
  for (const char c : name.substr(0, 80)) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    safe += plain ? c : '_';
  }
  return format("%04zu_%s.npy", index, safe.c_str());
}

Status write_array(const std::string& path, NpyType type, const std::vector<int64_t>& shape,
                   const std::vector<uint8_t>& bytes) {
  auto file = NpyWriter::create(path, type, shape);
  EDGEQ_RETURN_IF_ERROR(file.status());
  EDGEQ_RETURN_IF_ERROR(file.value().write(bytes.data(), bytes.size()));
  return file.value().commit();
}

Status run(const Options& options) {
  const std::vector<std::string> in = options.all("--input");
  const std::string out = options.text("--output");
  if (in.empty() || out.empty()) {
    return Status::invalid_argument("dump needs --input and --output; see edgeq-runner dump --help");
  }
  auto loaded = open_session(options, options.argument(0), /*keep_all=*/true);
  EDGEQ_RETURN_IF_ERROR(loaded.status());
  Session& session = *loaded.value();
  auto feeds = Feeds::open(session, in);
  EDGEQ_RETURN_IF_ERROR(feeds.status());
  const int64_t batch = feeds.value().images();
  EDGEQ_RETURN_IF_ERROR(feeds.value().run(0, batch));
  auto folder = WholeFolder::create(out);
  EDGEQ_RETURN_IF_ERROR(folder.status());
  JsonWriter json;
  json.begin_array();
  const std::vector<Activation>& activations = session.activations();
  for (size_t i = 0; i < activations.size(); ++i) {
    const Activation& activation = activations[i];
    std::vector<int64_t> shape = activation.shape;
    shape[0] = batch;
    std::vector<uint8_t> values(static_cast<size_t>(batch * activation.pixels * activation.channels) *
                                (activation.is_float ? 4 : 1));
    EDGEQ_RETURN_IF_ERROR(session.read_activation(i, values.data()));
    const std::string name = file_name(i, activation.name);
    EDGEQ_RETURN_IF_ERROR(write_array(
        folder.value().add(name), activation.is_float ? NpyType::kFloat32 : NpyType::kInt8, shape, values));
    json.begin_object().field("tensor", activation.name).field("file", name);
    if (!activation.is_float) {
      json.field("scale", double{activation.scale})
          .field("zero_point", activation.zero_point)
          .field("bits", activation.bits);
    }
    json.end_object();
  }
  json.end_array();
  EDGEQ_RETURN_IF_ERROR(write_text(folder.value().add("activations.json"), json.text() + "\n"));
  EDGEQ_RETURN_IF_ERROR(folder.value().commit());
  std::printf("%s: %zu activations\n", out.c_str(), activations.size());
  return Status();
}

}  // namespace

extern const Command k_command_dump;
const Command k_command_dump = {
    "dump",
    "MODEL",
    1,
    1,
    "Write every activation of a run (unfused, NHWC, int8 codes) and an index, activations.json.",
    {{"--input", "PATH", ".npy file with the batch first; once for each input of the model"},
     {"--output", "DIR", "a new folder, one .npy file an activation"},
     kThreadsOption,
     kCpusOption,
     kIsaOption},
    run};

}  // namespace edgeq
