#ifndef EDGEQ_RUNNER_MACHINE_H_
#define EDGEQ_RUNNER_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "runner/json.h"

namespace edgeq {

/// What the system tells about the CPUs that this process may use. Every field is empty, 0 or -1 where it
/// does not.
struct Machine {
  std::string cpu;    // the CPU's name
  std::string board;  // "Raspberry Pi 4 Model B Rev 1.5"
  std::vector<int> cpus;
  double quota_cpus = 0;       // of the control group; 0: no limit
  std::string governor;        // of the first of `cpus`
  double mhz = 0;              // lowest of `cpus` at the moment
  double mhz_max = 0;          // lowest of `cpus`
  double temperature = -1;     // degrees Celsius, the hottest sensor
  int64_t throttled = -1;      // how often the CPUs were slowed down because of heat, since boot
  int64_t under_voltage = -1;  // a Raspberry Pi's word: bits as `vcgencmd get_throttled` gives them
};

/// Reads the system's files below `root`, which is "" but in tests.
Machine read_machine(const std::string& root = "");

/// What happened between two readings that makes a latency worth less, as sentences.
std::vector<std::string> disturbances(const Machine& before, const Machine& after);

void write_machine(const Machine& machine, JsonWriter& json);

/// "0-3,6" to CPU numbers.
Result<std::vector<int>> parse_cpus(const std::string& text);

/// Keeps the process, and the threads that it starts from here on, on these CPUs.
Status pin_process(const std::vector<int>& cpus);

/// Most memory that the process has had resident, in bytes; 0 where the system does not tell.
uint64_t peak_memory_bytes();

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_MACHINE_H_
