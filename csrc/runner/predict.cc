// edgeq-runner predict: .npy in, one line of CSV an image out.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "ops/check.h"
#include "runner/feeds.h"
#include "runner/outputs.h"
#include "runner/session_options.h"
#include "runtime/prediction.h"

namespace edgeq {
namespace {

constexpr int64_t kDefaultBatch = 8;

Status run(const Options& options) {
  const auto batch = options.integer("--batch", kDefaultBatch, 1, 1 << 20);
  EDGEQ_RETURN_IF_ERROR(batch.status());
  const std::vector<std::string> in = options.all("--input");
  if (in.empty()) {
    return Status::invalid_argument("predict needs --input; see edgeq-runner predict --help");
  }
  auto session = open_session(options, options.argument(0));
  EDGEQ_RETURN_IF_ERROR(session.status());
  const auto classes = session.value()->classes();
  if (!classes.ok()) {
    return Status(classes.status().code(), options.argument(0) + ": " + classes.status().message());
  }
  auto feeds = Feeds::open(*session.value(), in, /*always_float=*/true);
  EDGEQ_RETURN_IF_ERROR(feeds.status());
  const size_t width = static_cast<size_t>(classes.value());
  std::vector<float> scores(width);
  std::string text = "class,probability,margin,defer\n";
  for (int64_t first = 0; first < feeds.value().images(); first += batch.value()) {
    const int64_t count = std::min(batch.value(), feeds.value().images() - first);
    EDGEQ_RETURN_IF_ERROR(check_stopped());
    EDGEQ_RETURN_IF_ERROR(feeds.value().run(first, count));
    const uint8_t* row = feeds.value().results()[0].data();
    for (int64_t i = 0; i < count; ++i, row += width * sizeof(float)) {
      std::memcpy(scores.data(), row, width * sizeof(float));
      const Prediction found =
          predict(scores.data(), width, session.value()->gives_probabilities(), session.value()->guard());
      // Nine digits give a float32 back.
      text += format("%lld,%.9g,%.9g,%d\n", static_cast<long long>(found.answer), double{found.probability},
                     double{found.margin}, found.defer ? 1 : 0);
    }
  }
  return write_text(options.text("--output", "-"), text);
}

}  // namespace

extern const Command k_command_predict;
const Command k_command_predict = {
    "predict",
    "MODEL",
    1,
    1,
    "Write each input's class, calibrated probability, margin and whether the model's guard defers it, as "
    "CSV.",
    {{"--input", "PATH", ".npy file with the batch first; once for each input of the model"},
     {"--output", "PATH", "the CSV file; -: standard output (default)"},
     {"--batch", "N", "images to run at once (default 8); the results do not depend on it"},
     kThreadsOption,
     kCpusOption,
     kIsaOption},
    run};

}  // namespace edgeq
