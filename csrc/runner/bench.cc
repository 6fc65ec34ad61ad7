// edgeq-runner bench: latency of a model on this machine, and what the machine says about itself meanwhile.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "ops/check.h"
#include "runner/json.h"
#include "runner/machine.h"
#include "runner/outputs.h"
#include "runner/random_input.h"
#include "runner/session_options.h"

namespace edgeq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMinRuns = 20;
constexpr size_t kMaxRuns = 1000000;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// The p-th quantile, 0 <= p <= 1, of sorted values, between its neighbours in proportion.
double quantile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

struct Figures {
  double load_ms = 0;
  double first_ms = 0;
  std::vector<double> runs_ms;  // sorted
  std::vector<LayerInfo> layers;
};

/// Runs for `seconds`, and at least kMinRuns times; the times in order of size.
Result<std::vector<double>> time_runs(RandomInput& input, double seconds) {
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  while (times.size() < kMinRuns || (ms_since(start) < seconds * 1e3 && times.size() < kMaxRuns)) {
    const Clock::time_point before = Clock::now();
    EDGEQ_RETURN_IF_ERROR(input.run());
    times.push_back(ms_since(before));
    EDGEQ_RETURN_IF_ERROR(check_stopped());
  }
  std::sort(times.begin(), times.end());
  return times;
}

std::string layer_table(const std::vector<LayerInfo>& layers, int64_t batch) {
  size_t name_width = 5, kernel_width = 6;
  double total = 0;
  for (const LayerInfo& layer : layers) {
    if (layer.median_ns == 0) continue;
    name_width = std::max(name_width, std::min<size_t>(layer.name.size(), 48));
    kernel_width = std::max(kernel_width, layer.kernel.size());
    total += static_cast<double>(layer.median_ns);
  }
  std::string text = format("\n%-*s  %-*s  %9s  %5s  %7s\n", static_cast<int>(name_width), "layer",
                            static_cast<int>(kernel_width), "kernel", "us", "%", "GMAC/s");
  for (const LayerInfo& layer : layers) {
    if (layer.median_ns == 0) continue;
    const double ns = static_cast<double>(layer.median_ns);
    // The end of a long name tells more than its beginning.
    const size_t skip = layer.name.size() > name_width ? layer.name.size() - name_width : 0;
    text += format("%-*s  %-*s  %9.1f  %5.1f", static_cast<int>(name_width), layer.name.c_str() + skip,
                   static_cast<int>(kernel_width), layer.kernel.c_str(), ns / 1e3, 100 * ns / total);
    if (layer.macs > 0) text += format("  %7.1f", static_cast<double>(layer.macs * batch) / ns);
    text += "\n";
  }
  return text;
}

void write_layers(const std::vector<LayerInfo>& layers, int64_t batch, JsonWriter& json) {
  double total = 0;
  for (const LayerInfo& layer : layers) total += static_cast<double>(layer.median_ns);
  json.key("layers").begin_array();
  for (const LayerInfo& layer : layers) {
    const double ms = static_cast<double>(layer.median_ns) / 1e6;
    json.begin_object();
    json.field("name", layer.name).field("op", layer.op);
    json.field("kernel", !layer.kernel.empty()      ? layer.kernel
                         : layer.fused_into.empty() ? std::string("free")
                                                    : "in " + layer.fused_into);
    json.field("ms", ms).field("share", total > 0 ? ms * 1e6 / total : 0.0);
    json.field("macs", layer.macs * batch);
    json.field("gmac_per_s", ms > 0 ? static_cast<double>(layer.macs * batch) / ms / 1e6 : 0.0);
    json.end_object();
  }
  json.end_array();
}

Status run(const Options& options) {
  const auto batch = options.integer("--batch", 1, 1, 1024);
  EDGEQ_RETURN_IF_ERROR(batch.status());
  const auto seconds = options.number("--seconds", 2, 0.01, 3600);
  EDGEQ_RETURN_IF_ERROR(seconds.status());
  const auto warm_up = options.number("--warm-up", 0.5, 0, 3600);
  EDGEQ_RETURN_IF_ERROR(warm_up.status());
  const std::string& path = options.argument(0);
  Figures figures;
  Clock::time_point start = Clock::now();
  auto loaded = open_session(options, path);
  EDGEQ_RETURN_IF_ERROR(loaded.status());
  figures.load_ms = ms_since(start);
  Session& session = *loaded.value();
  RandomInput input(session, batch.value(), options.has("--codes"));
  start = Clock::now();
  EDGEQ_RETURN_IF_ERROR(input.run());
  figures.first_ms = ms_since(start);
  // Frequencies climb and caches fill before anything counts.
  for (start = Clock::now(); ms_since(start) < warm_up.value() * 1e3;) {
    EDGEQ_RETURN_IF_ERROR(input.run());
    EDGEQ_RETURN_IF_ERROR(check_stopped());
  }
  const Machine before = read_machine();
  auto times = time_runs(input, seconds.value());
  EDGEQ_RETURN_IF_ERROR(times.status());
  figures.runs_ms = std::move(times).value();
  const Machine after = read_machine();
  if (options.has("--layers")) {
    // In runs of their own: the clock between the steps costs a little.
    session.set_profile(true);
    EDGEQ_RETURN_IF_ERROR(time_runs(input, seconds.value()).status());
    session.set_profile(false);
    figures.layers = session.layers();
  }
  const auto arena = session.arena_bytes(batch.value());
  EDGEQ_RETURN_IF_ERROR(arena.status());
  const double median = quantile(figures.runs_ms, 0.5);
  const double p10 = quantile(figures.runs_ms, 0.1);
  const double p90 = quantile(figures.runs_ms, 0.9);
  const int64_t macs = session.macs() * batch.value();
  const char* isa = isa_name(session.isas().best());
  const std::vector<std::string> warnings = disturbances(before, after);
  const std::string json_path = options.text("--json");
  if (json_path != "-") {
    std::printf("latency           %.3f ms median, %.3f p10, %.3f p90, %.3f least, %zu runs, batch %lld\n",
                median, p10, p90, figures.runs_ms.front(), figures.runs_ms.size(),
                static_cast<long long>(batch.value()));
    std::printf("start             %.3f ms to load, %.3f ms for the first run\n", figures.load_ms,
                figures.first_ms);
    std::printf("instruction set   %s, %d thread%s\n", isa, session.threads(),
                session.threads() > 1 ? "s" : "");
    std::printf("memory            %lld bytes of weights, %llu of activations; %llu at most, all together\n",
                static_cast<long long>(session.weight_bytes()),
                static_cast<unsigned long long>(arena.value()),
                static_cast<unsigned long long>(peak_memory_bytes()));
    std::printf("MACs              %lld (%.1f G/s)\n", static_cast<long long>(macs),
                static_cast<double>(macs) / median / 1e6);
    std::printf("cpu               %s", after.cpu.c_str());
    if (!after.board.empty()) std::printf(", %s", after.board.c_str());
    if (after.mhz > 0) std::printf(", %.0f MHz", after.mhz);
    if (after.mhz_max > 0) std::printf(" of %.0f", after.mhz_max);
    if (!after.governor.empty()) std::printf(", governor %s", after.governor.c_str());
    if (after.temperature >= 0) std::printf(", %.1f degrees C", after.temperature);
    std::printf("\n");
    for (const std::string& warning : warnings) std::printf("warning           %s\n", warning.c_str());
    if (!figures.layers.empty()) std::fputs(layer_table(figures.layers, batch.value()).c_str(), stdout);
  }
  if (json_path.empty()) return Status();
  JsonWriter json;
  json.begin_object();
  json.field("model", path);
  json.key("latency").begin_object();
  json.field("median_ms", median).field("p10_ms", p10).field("p90_ms", p90);
  json.field("min_ms", figures.runs_ms.front()).field("runs", static_cast<int64_t>(figures.runs_ms.size()));
  json.end_object();
  json.field("load_ms", figures.load_ms).field("first_run_ms", figures.first_ms);
  json.field("isa", isa).field("threads", session.threads()).field("batch", batch.value());
  json.field("file_bytes", session.file_bytes()).field("weight_bytes", session.weight_bytes());
  json.field("arena_bytes", arena.value()).field("peak_memory_bytes", peak_memory_bytes());
  json.field("macs", macs).field("gmac_per_s", static_cast<double>(macs) / median / 1e6);
  json.key("machine");
  write_machine(before, json);
  json.key("machine_after");
  write_machine(after, json);
  json.key("warnings").begin_array();
  for (const std::string& warning : warnings) json.value(warning);
  json.end_array();
  if (!figures.layers.empty()) write_layers(figures.layers, batch.value(), json);
  json.end_object();
  return write_text(json_path, json.text() + "\n");
}

}  // namespace

extern const Command k_command_bench;
const Command k_command_bench = {
    "bench",
    "MODEL",
    1,
    1,
    "Time a model on random inputs.",
    {{"--seconds", "S", "time at least this long (default 2)"},
     {"--warm-up", "S", "run this long before (default 0.5)"},
     {"--batch", "N", "images a run (default 1)"},
     {"--codes", nullptr, "int8 codes at the ends instead of float32"},
     {"--layers", nullptr, "time every layer too"},
     {"--json", "PATH", "write the figures to a file; -: to standard output, alone"},
     kThreadsOption,
     kCpusOption,
     kIsaOption},
    run};

}  // namespace edgeq
