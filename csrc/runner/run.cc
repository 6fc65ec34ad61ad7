// edgeq-runner run: .npy in, .npy out.

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "ops/check.h"
#include "runner/npy.h"
#include "runner/session_options.h"

namespace edgeq {
namespace {

constexpr int64_t kDefaultBatch = 8;

std::string names_of(const std::vector<EndInfo>& ends) {
  std::string names;
  for (const EndInfo& end : ends) names += (names.empty() ? "" : ", ") + end.name;
  return names;
}

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

/// Runs the arrays of one file an input through the model, `batch` images at a time.
class Runner {
 public:
  Runner(Session& session, int64_t batch) : session_(session), batch_(batch) {}

  Status run(const std::vector<std::string>& in, const std::vector<std::string>& out) {
    std::vector<NpyReader> readers;
    for (size_t i = 0; i < in.size(); ++i) {
      auto reader = NpyReader::open(in[i]);
      EDGEQ_RETURN_IF_ERROR(reader.status());
      EDGEQ_RETURN_IF_ERROR(expect_input(reader.value(), session_.inputs()[i]));
      readers.push_back(std::move(reader).value());
    }
    const bool codes = !readers[0].is_float();
    const int64_t images = readers[0].shape()[0];
    for (const NpyReader& reader : readers)
      EDGEQ_RETURN_IF_ERROR(expect_same_batch(reader, in[0], codes, images));
    std::vector<NpyWriter> writers;
    for (size_t i = 0; i < out.size(); ++i) {
      const EndInfo& end = session_.outputs()[i];
      std::vector<int64_t> shape = end.shape;
      shape[0] = images;
      auto writer = NpyWriter::create(out[i], end.is_float || !codes, shape);
      EDGEQ_RETURN_IF_ERROR(writer.status());
      writers.push_back(std::move(writer).value());
    }
    for (int64_t first = 0; first < images; first += batch_) {
      EDGEQ_RETURN_IF_ERROR(run_batch(readers, writers, codes, first, std::min(batch_, images - first)));
    }
    for (NpyWriter& writer : writers) EDGEQ_RETURN_IF_ERROR(writer.commit());
    images_ += images;
    return Status();
  }

  int64_t images() const { return images_; }

 private:
  Status run_batch(const std::vector<NpyReader>& readers, std::vector<NpyWriter>& writers, bool codes,
                   int64_t first, int64_t count) {
    in_.resize(readers.size());
    out_.resize(writers.size());
    std::vector<InputArray> inputs;
    std::vector<OutputArray> outputs;
    for (size_t i = 0; i < readers.size(); ++i) {
      in_[i].resize(static_cast<size_t>(count * elements_of(session_.inputs()[i])) * (codes ? 1 : 4));
      EDGEQ_RETURN_IF_ERROR(readers[i].read(first, count, in_[i].data()));
      inputs.push_back({in_[i].data(), !codes});
    }
    for (size_t i = 0; i < writers.size(); ++i) {
      const EndInfo& end = session_.outputs()[i];
      const bool is_float = end.is_float || !codes;
      out_[i].resize(static_cast<size_t>(count * elements_of(end)) * (is_float ? 4 : 1));
      outputs.push_back({out_[i].data(), is_float});
    }
    EDGEQ_RETURN_IF_ERROR(session_.run(inputs, outputs, count));
    for (size_t i = 0; i < writers.size(); ++i)
      EDGEQ_RETURN_IF_ERROR(writers[i].write(out_[i].data(), out_[i].size()));
    return Status();
  }

  Session& session_;
  const int64_t batch_;
  int64_t images_ = 0;
  std::vector<std::vector<uint8_t>> in_, out_;
};

Status run_folder(Runner& runner, const std::string& in, const std::vector<std::string>& out) {
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
    EDGEQ_RETURN_IF_ERROR(runner.run({in + "/" + name}, files));
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
  const auto& inputs = session.value()->inputs();
  const auto& outputs = session.value()->outputs();
  if (in.size() != inputs.size() || out.size() != outputs.size()) {
    return Status::invalid_argument(
        format("the model has %zu inputs (%s) and %zu outputs (%s): give --input and --output once for each, "
               "in this order",
               inputs.size(), names_of(inputs).c_str(), outputs.size(), names_of(outputs).c_str()));
  }
  Runner runner(*session.value(), batch.value());
  const bool folder = is_folder(in[0]);
  if (folder && in.size() > 1) {
    return Status::invalid_argument(
        "a folder of inputs is possible for models of one input only; name files");
  }
  EDGEQ_RETURN_IF_ERROR(folder ? run_folder(runner, in[0], out) : runner.run(in, out));
  std::printf("%s: %lld images\n", out[0].c_str(), static_cast<long long>(runner.images()));
  return Status();
}

}  // namespace

extern const Command k_command_run;
const Command k_command_run = {
    "run",
    "MODEL",
    1,
    1,
    "Run a model on arrays: float32 gives float32, int8 codes give int8 codes.",
    {{"--input", "PATH",
      ".npy file with the batch first, or a folder of them; once for each input of the model"},
     {"--output", "PATH", ".npy file, or a folder; once for each output"},
     {"--batch", "N", "images to run at once (default 8); the results do not depend on it"},
     kThreadsOption,
     kCpusOption,
     kIsaOption},
    run};

}  // namespace edgeq
