// edgeq-runner run: .npy in, .npy out.

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "ops/check.h"
#include "runner/feeds.h"
#include "runner/npy.h"
#include "runner/session_options.h"

namespace edgeq {
namespace {

constexpr int64_t kDefaultBatch = 8;

bool is_folder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

/// The names of the .npy files in a folder, sorted.
Result<std::vector<std::string>> npy_files(const std::string& folder) {
  DIR* open = ::opendir(folder.c_str());
  if (open == nullptr) return Status::io(folder + " cannot be read (" + std::strerror(errno) + ")");
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(open)) {
    const std::string name = entry->d_name;
    if (name.size() > 4 && name[0] != '.' && name.compare(name.size() - 4, 4, ".npy") == 0)
      names.push_back(name);
  }
  ::closedir(open);
  if (names.empty()) return Status::io(folder + " holds no .npy file");
  std::sort(names.begin(), names.end());
  return names;
}

/// Runs the images of one file an input, `batch` at a time; adds them to `images`.
Status run_files(Session& session, int64_t batch, const std::vector<std::string>& in,
                 const std::vector<std::string>& out, int64_t* images) {
  auto feeds = Feeds::open(session, in);
  EDGEQ_RETURN_IF_ERROR(feeds.status());
  const int64_t count = feeds.value().images();
  std::vector<NpyWriter> writers;
  for (size_t i = 0; i < out.size(); ++i) {
    std::vector<int64_t> shape = session.outputs()[i].shape;
    shape[0] = count;
    const NpyType type = feeds.value().gives_float(i) ? NpyType::kFloat32 : NpyType::kInt8;
    auto writer = NpyWriter::create(out[i], type, shape);
    EDGEQ_RETURN_IF_ERROR(writer.status());
    writers.push_back(std::move(writer).value());
  }
  for (int64_t first = 0; first < count; first += batch) {
    EDGEQ_RETURN_IF_ERROR(feeds.value().run(first, std::min(batch, count - first)));
    for (size_t i = 0; i < writers.size(); ++i) {
      const std::vector<uint8_t>& bytes = feeds.value().results()[i];
      EDGEQ_RETURN_IF_ERROR(writers[i].write(bytes.data(), bytes.size()));
    }
  }
  for (NpyWriter& writer : writers) EDGEQ_RETURN_IF_ERROR(writer.commit());
  *images += count;
  return Status();
}

Status run_folder(Session& session, int64_t batch, const std::string& in, const std::vector<std::string>& out,
                  int64_t* images) {
  const auto names = npy_files(in);
  EDGEQ_RETURN_IF_ERROR(names.status());
  for (const std::string& folder : out) {
    if (::mkdir(folder.c_str(), 0777) != 0 && (errno != EEXIST || !is_folder(folder))) {
      return Status::io(folder + " cannot be made (" + std::strerror(errno) +
                        "); name a folder for the results of a folder");
    }
  }
  for (const std::string& name : names.value()) {
    std::vector<std::string> files;
    for (const std::string& folder : out) files.push_back(folder + "/" + name);
    EDGEQ_RETURN_IF_ERROR(run_files(session, batch, {in + "/" + name}, files, images));
  }
  return Status();
}

Status run(const Options& options) {
  const auto batch = options.integer("--batch", kDefaultBatch, 1, 1 << 20);
  EDGEQ_RETURN_IF_ERROR(batch.status());
  const std::vector<std::string> in = options.all("--input");
  const std::vector<std::string> out = options.all("--output");
  if (in.empty() || out.empty()) {
    return Status::invalid_argument("run needs --input and --output; see edgeq-runner run --help");
  }
  auto session = open_session(options, options.argument(0));
  EDGEQ_RETURN_IF_ERROR(session.status());
  const auto& outputs = session.value()->outputs();
  if (out.size() != outputs.size()) {
    std::string names;
    for (const EndInfo& end : outputs) names += (names.empty() ? "" : ", ") + end.name;
    return Status::invalid_argument(
        format("the model has %zu outputs (%s): give --output once for each, in this order", outputs.size(),
               names.c_str()));
  }
  const bool folder = is_folder(in[0]);
  if (folder && in.size() > 1) {
    return Status::invalid_argument(
        "a folder of inputs is possible for models of one input only; name files");
  }
  int64_t images = 0;
  EDGEQ_RETURN_IF_ERROR(folder ? run_folder(*session.value(), batch.value(), in[0], out, &images)
                               : run_files(*session.value(), batch.value(), in, out, &images));
  std::printf("%s: %lld images\n", out[0].c_str(), static_cast<long long>(images));
  return Status();
}

}  // namespace

extern const Command k_command_run;
const Command k_command_run = {
    "run",
    "MODEL",
    1,
    1,
    "Run a model on arrays: float32 and uint8 images give float32, int8 codes give int8 codes.",
    {{"--input", "PATH",
      ".npy file with the batch first, or a folder of them; once for each input of the model"},
     {"--output", "PATH", ".npy file, or a folder; once for each output"},
     {"--batch", "N", "images to run at once (default 8); the results do not depend on it"},
     kThreadsOption,
     kCpusOption,
     kIsaOption},
    run};

}  // namespace edgeq
