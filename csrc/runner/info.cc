// edgeq-runner info: this build, this CPU, and what becomes of a model here.

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/cpu_features.h"
#include "runner/json.h"
#include "runner/machine.h"
#include "runner/outputs.h"
#include "runner/session_options.h"

namespace edgeq {
namespace {

#if defined(__x86_64__)
constexpr const char* kArchitecture = "x86_64";
#elif defined(__i386__)
constexpr const char* kArchitecture = "i686";
#elif defined(__aarch64__)
constexpr const char* kArchitecture = "aarch64";
#elif defined(__arm__)
constexpr const char* kArchitecture = "armv7";
#else
constexpr const char* kArchitecture = "unknown";
#endif

void print_model(const std::string& path, const Session& session, uint64_t arena) {
  std::printf("\n%s\n", path.c_str());
  for (const EndInfo& end : session.inputs()) std::printf("input             %s\n", end_text(end).c_str());
  for (const EndInfo& end : session.outputs()) std::printf("output            %s\n", end_text(end).c_str());
  const Guard& guard = session.guard();
  if (guard.present) {
    std::printf(
        "guard             temperature %.6g, defers where the two highest probabilities differ by less than "
        "%.6g\n",
        double{guard.temperature}, double{guard.margin});
  }
  std::printf("file              %lld bytes\n", static_cast<long long>(session.file_bytes()));
  std::printf("weights in memory %lld bytes\n", static_cast<long long>(session.weight_bytes()));
  std::printf("arena, batch 1    %llu bytes\n", static_cast<unsigned long long>(arena));
  std::printf("MACs, batch 1     %lld\n", static_cast<long long>(session.macs()));
}

void write_ends(const std::vector<EndInfo>& ends, JsonWriter& json) {
  json.begin_array();
  for (const EndInfo& end : ends) {
    json.begin_object().field("name", end.name).key("shape").begin_array();
    for (const int64_t extent : end.shape) json.value(extent);
    json.end_array().field("dtype", end.is_float ? "float32" : "int8");
    if (!end.is_float)
      json.field("scale", double{end.scale}).field("zero_point", end.zero_point).field("bits", end.bits);
    json.end_object();
  }
  json.end_array();
}

Status run(const Options& options) {
  const auto usable = usable_isas(std::getenv("EDGEQ_MAX_ISA"));
  EDGEQ_RETURN_IF_ERROR(usable.status());
  const IsaSet available = isas_of(detect_cpu_features());
  const Machine machine = read_machine();
  const std::string json_path = options.text("--json");
  std::unique_ptr<Session> session;
  uint64_t arena = 0;
  if (options.argument_count() > 0) {
    auto loaded = open_session(options, options.argument(0));
    EDGEQ_RETURN_IF_ERROR(loaded.status());
    session = std::move(loaded).value();
    const auto bytes = session->arena_bytes(1);
    EDGEQ_RETURN_IF_ERROR(bytes.status());
    arena = bytes.value();
  }
  if (json_path != "-") {
    std::printf("edgeq-runner      %s, %s\n", EDGEQ_VERSION, kArchitecture);
    std::printf("cpu               %s\n", machine.cpu.c_str());
    if (!machine.board.empty()) std::printf("board             %s\n", machine.board.c_str());
    std::printf("cpus              %zu of this process", machine.cpus.size());
    if (machine.quota_cpus > 0) std::printf(", limited to the time of %.2f", machine.quota_cpus);
    std::printf("\ninstruction sets  ");
    const char* comma = "";
    for (const Isa isa : available.levels()) {
      std::printf("%s%s", comma, isa_name(isa));
      comma = ", ";
    }
    std::printf("\nin use            %s\n", isa_name(usable.value().best()));
    if (machine.mhz > 0) std::printf("frequency         %.0f MHz\n", machine.mhz);
    if (!machine.governor.empty()) std::printf("governor          %s\n", machine.governor.c_str());
    if (machine.temperature >= 0) std::printf("temperature       %.1f degrees C\n", machine.temperature);
    if (session != nullptr) print_model(options.argument(0), *session, arena);
  }
  if (json_path.empty()) return Status();
  JsonWriter json;
  json.begin_object().field("version", EDGEQ_VERSION).field("architecture", kArchitecture);
  json.key("available").begin_array();
  for (const Isa isa : available.levels()) json.value(isa_name(isa));
  json.end_array().field("in_use", isa_name(usable.value().best())).key("machine");
  write_machine(machine, json);
  if (session != nullptr) {
    json.key("model").begin_object().field("path", options.argument(0)).key("inputs");
    write_ends(session->inputs(), json);
    json.key("outputs");
    write_ends(session->outputs(), json);
    if (session->guard().present) {
      json.key("guard").begin_object().field("temperature", double{session->guard().temperature});
      json.field("margin", double{session->guard().margin}).end_object();
    }
    json.field("file_bytes", session->file_bytes()).field("weight_bytes", session->weight_bytes());
    json.field("arena_bytes", arena).field("macs", session->macs());
    json.end_object();
  }
  json.end_object();
  return write_text(json_path, json.text() + "\n");
}

}  // namespace

extern const Command k_command_info;
const Command k_command_info = {
    "info",
    "[MODEL]",
    0,
    1,
    "Show this build, this CPU, and what a model takes and gives.",
    {{"--json", "PATH", "write it to a file; -: to standard output, alone"}, kIsaOption},
    run};

}  // namespace edgeq
