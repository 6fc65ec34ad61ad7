#include "runner/machine.h"

#include <dirent.h>
#include <sys/resource.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/cpu_features.h"
#include "ops/check.h"
#include "runtime/cpu_limits.h"

namespace edgeq {
namespace {

/// The value of "key : value" lines of /proc/cpuinfo, for each of which `each` is called.
template <typename Each>
void for_lines(const std::string& text, Each each) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const size_t colon = text.find(':', begin);
    if (colon < end) {
      size_t key_end = colon;
      while (key_end > begin && (text[key_end - 1] == ' ' || text[key_end - 1] == '\t')) --key_end;
      size_t value = colon + 1;
      while (value < end && text[value] == ' ') ++value;
      each(text.substr(begin, key_end - begin), text.substr(value, end - value));
    }
    begin = end + 1;
  }
}

/// Arm's name of a core by the "CPU part" that Linux prints in place of a name.
std::string arm_core(const std::string& part) {
  constexpr struct {
    const char* part;
    const char* name;
  } kCores[] = {
      {"0xc07", "Cortex-A7"},   {"0xc08", "Cortex-A8"},   {"0xc09", "Cortex-A9"},   {"0xc0f", "Cortex-A15"},
      {"0xd03", "Cortex-A53"},  {"0xd04", "Cortex-A35"},  {"0xd05", "Cortex-A55"},  {"0xd07", "Cortex-A57"},
      {"0xd08", "Cortex-A72"},  {"0xd09", "Cortex-A73"},  {"0xd0a", "Cortex-A75"},  {"0xd0b", "Cortex-A76"},
      {"0xd0c", "Neoverse-N1"}, {"0xd0d", "Cortex-A77"},  {"0xd40", "Neoverse-V1"}, {"0xd41", "Cortex-A78"},
      {"0xd44", "Cortex-X1"},   {"0xd46", "Cortex-A510"}, {"0xd47", "Cortex-A710"}, {"0xd48", "Cortex-X2"},
      {"0xd49", "Neoverse-N2"}, {"0xd4d", "Cortex-A715"}, {"0xd4e", "Cortex-X3"},   {"0xd80", "Cortex-A520"},
      {"0xd81", "Cortex-A720"}, {"0xd82", "Cortex-X4"}};
  for (const auto& core : kCores) {
    if (part == core.part) return core.name;
  }
  return "CPU part " + part;
}

std::string cpu_name(const std::string& cpuinfo) {
  std::string model, arm;
  for_lines(cpuinfo, [&](const std::string& key, const std::string& value) {
    if (key == "model name" && model.empty()) model = value;
    if (key != "CPU part") return;
    // Phones mix cores: each kind once.
    const std::string core = arm_core(value);
    if (arm.find(core) == std::string::npos) arm += (arm.empty() ? "" : ", ") + core;
  });
  // 32-bit kernels give the architecture ("ARMv7 Processor rev 4") for a model name.
  if (!arm.empty()) return arm;
  return model.empty() ? detect_cpu_features().brand : model;
}

double number_in(const std::string& path) {
  const std::string text = read_text(path, 64);
  return text.empty() ? -1 : std::strtod(text.c_str(), nullptr);
}

/// Calls each(path of the entry) for the entries of a folder whose names begin with `prefix`.
template <typename Each>
void for_entries(const std::string& folder, const char* prefix, Each each) {
  DIR* open = ::opendir(folder.c_str());
  if (open == nullptr) return;
  while (const dirent* entry = ::readdir(open)) {
    if (std::strncmp(entry->d_name, prefix, std::strlen(prefix)) == 0) each(folder + "/" + entry->d_name);
  }
  ::closedir(open);
}

double hottest(const std::string& root) {
  double hottest = -1;
  const auto consider = [&](const std::string& path) {
    double value = number_in(path);
    // Thousandths of a degree; some old drivers give degrees.
    if (value >= 1000) value /= 1000;
    // Absent sensors read as 0, or as nonsense.
    if (value > 0 && value < 200) hottest = std::max(hottest, value);
  };
  for_entries(root + "/sys/class/thermal", "thermal_zone",
              [&](const std::string& zone) { consider(zone + "/temp"); });
  for_entries(root + "/sys/class/hwmon", "hwmon", [&](const std::string& sensor) {
    const std::string name = read_text(sensor + "/name", 64);
    if (name != "coretemp" && name != "k10temp" && name != "cpu_thermal") return;
    consider(sensor + "/temp1_input");
  });
  return hottest;
}

/// Sets `lowest` to `value` where that is known and lower.
void lower(double& lowest, double value) {
  if (value > 0 && (lowest == 0 || value < lowest)) lowest = value;
}

}  // namespace

Machine read_machine(const std::string& root) {
  Machine machine;
  const std::string cpuinfo = read_text(root + "/proc/cpuinfo", 1 << 20);
  machine.cpu = cpu_name(cpuinfo);
  machine.board = read_text(root + "/proc/device-tree/model", 256);
  machine.cpus = allowed_cpus();
  machine.quota_cpus = quota_cpus(root);
  machine.temperature = hottest(root);
  for (const int cpu : machine.cpus) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    if (machine.governor.empty()) machine.governor = read_text(folder + "/cpufreq/scaling_governor", 64);
    lower(machine.mhz, number_in(folder + "/cpufreq/scaling_cur_freq") / 1000);
    lower(machine.mhz_max, number_in(folder + "/cpufreq/cpuinfo_max_freq") / 1000);
    const double count = number_in(folder + "/thermal_throttle/core_throttle_count");
    if (count >= 0) machine.throttled = std::max<int64_t>(machine.throttled, 0) + static_cast<int64_t>(count);
  }
  if (machine.mhz == 0) {
    int processor = -1;
    for_lines(cpuinfo, [&](const std::string& key, const std::string& value) {
      if (key == "processor") processor = std::atoi(value.c_str());
      if (key != "cpu MHz") return;
      if (std::find(machine.cpus.begin(), machine.cpus.end(), processor) == machine.cpus.end()) return;
      lower(machine.mhz, std::strtod(value.c_str(), nullptr));
    });
  }
  const std::string raspberry = read_text(root + "/sys/devices/platform/soc/soc:firmware/get_throttled", 64);
  if (!raspberry.empty()) machine.under_voltage = std::strtoll(raspberry.c_str(), nullptr, 16);
  return machine;
}

std::vector<std::string> disturbances(const Machine& before, const Machine& after) {
  std::vector<std::string> found;
  if (after.throttled > before.throttled && before.throttled >= 0) {
    found.push_back(format("the CPU was throttled because of heat %lld times while it was timed",
                           static_cast<long long>(after.throttled - before.throttled)));
  }
  // Bits 0 to 3 speak of now: under-voltage, frequency capped, throttled, soft temperature limit.
  if (after.under_voltage > 0 && (after.under_voltage & 0xF) != 0) {
    found.push_back(format("the board reports %s (get_throttled is 0x%llx)",
                           (after.under_voltage & 1) != 0 ? "under-voltage" : "throttling",
                           static_cast<unsigned long long>(after.under_voltage)));
  }
  if (before.mhz > 0 && after.mhz > 0 && after.mhz < 0.9 * before.mhz) {
    found.push_back(
        format("the CPU's frequency fell from %.0f to %.0f MHz while it was timed", before.mhz, after.mhz));
  }
  return found;
}

void write_machine(const Machine& machine, JsonWriter& json) {
  json.begin_object();
  json.field("cpu", machine.cpu);
  if (!machine.board.empty()) json.field("board", machine.board);
  json.key("cpus").begin_array();
  for (const int cpu : machine.cpus) json.value(cpu);
  json.end_array();
  if (machine.quota_cpus > 0) json.field("quota_cpus", machine.quota_cpus);
  if (!machine.governor.empty()) json.field("governor", machine.governor);
  if (machine.mhz > 0) json.field("mhz", machine.mhz);
  if (machine.mhz_max > 0) json.field("mhz_max", machine.mhz_max);
  if (machine.temperature >= 0) json.field("temperature", machine.temperature);
  if (machine.throttled >= 0) json.field("throttled", machine.throttled);
  if (machine.under_voltage >= 0) json.field("get_throttled", machine.under_voltage);
  json.end_object();
}

Result<std::vector<int>> parse_cpus(const std::string& text) {
  std::vector<int> cpus;
  const char* at = text.c_str();
  while (true) {
    char* end = nullptr;
    const long first = std::strtol(at, &end, 10);
    bool good = end != at && *at >= '0' && *at <= '9';
    long last = first;
    if (good && *end == '-') {
      at = end + 1;
      last = std::strtol(at, &end, 10);
      good = end != at && *at >= '0' && *at <= '9';
    }
    if (!good || last < first || last >= 4096 || (*end != '\0' && *end != ',')) {
      return Status::invalid_argument("--cpus takes CPU numbers such as 0-3,6, not \"" + text.substr(0, 40) +
                                      "\"");
    }
    for (long cpu = first; cpu <= last; ++cpu) cpus.push_back(static_cast<int>(cpu));
    if (*end == '\0') return cpus;
    at = end + 1;
  }
}

Status pin_process(const std::vector<int>& cpus) {
#if defined(__linux__)
  constexpr int kCapacity = 4096;
  cpu_set_t* set = CPU_ALLOC(kCapacity);
  if (set == nullptr) return Status::out_of_memory("no memory for a set of CPUs");
  const size_t bytes = CPU_ALLOC_SIZE(kCapacity);
  CPU_ZERO_S(bytes, set);
  for (const int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), bytes, set);
  const bool done = sched_setaffinity(0, bytes, set) == 0;
  const int error = errno;
  CPU_FREE(set);
  if (done) {
    // The kernel drops CPUs that are not there, and keeps the rest without a word.
    for (const int cpu : cpus) {
      const std::vector<int> allowed = allowed_cpus();
      if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) continue;
      return Status::invalid_argument(
          format("CPU %d is not there or not this process's to use; see edgeq-runner info", cpu));
    }
    return Status();
  }
  return Status::invalid_argument(std::string("the process cannot be kept on these CPUs (") +
                                  std::strerror(error) +
                                  "); see edgeq-runner info for those that it may use");
#else
  return Status::unsupported("this system cannot keep a process on chosen CPUs; leave out --cpus");
#endif
}

uint64_t peak_memory_bytes() {
  struct rusage usage = {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#if defined(__APPLE__)
  return static_cast<uint64_t>(usage.ru_maxrss);
#else
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

}  // namespace edgeq
