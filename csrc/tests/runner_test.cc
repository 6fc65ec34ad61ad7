// What edgeq-runner reads from the system and from command lines, over files that stand for other machines.

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "runner/command.h"
#include "runner/json.h"
#include "runner/machine.h"
#include "runtime/cpu_limits.h"

namespace edgeq {
namespace {

int g_failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  ++g_failures;
  std::fprintf(stderr, "FAIL: %s\n", what);
}

/// A folder that plays the root of another machine's file system.
class Root {
 public:
  Root() {
    char pattern[] = "/tmp/runner_test.XXXXXX";
    path_ = ::mkdtemp(pattern);
  }
  ~Root() { (void)!std::system(("rm -r " + path_).c_str()); }

  const std::string& path() const { return path_; }

  void write(const std::string& file, const std::string& content) {
    for (size_t slash = 1; (slash = file.find('/', slash)) != std::string::npos; ++slash) {
      ::mkdir((path_ + file.substr(0, slash)).c_str(), 0777);
    }
    std::ofstream(path_ + file) << content;
  }

 private:
  std::string path_;
};

void test_quota() {
  Root none;
  expect(quota_cpus(none.path()) == 0, "no control groups, no limit");
  Root second;
  second.write("/proc/self/cgroup", "0::/a/b\n");
  second.write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  expect(quota_cpus(second.path()) == 0, "max is no limit");
  second.write("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  second.write("/sys/fs/cgroup/a/b/cpu.max", "300000 100000\n");
  expect(quota_cpus(second.path()) == 1.5, "version 2: the smallest on the way up");
  // A container sees the host's path, and only its own group.
  Root container;
  container.write("/proc/self/cgroup", "0::/machine/container\n");
  container.write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  expect(quota_cpus(container.path()) == 2, "version 2 in a container");
  Root first;
  first.write("/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
  first.write("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000\n");
  first.write("/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  first.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  first.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  expect(quota_cpus(first.path()) == 0.5, "version 1");
}

void test_machine() {
  const std::vector<int> cpus = allowed_cpus();
  expect(!cpus.empty() && usable_cpus() >= 1 && usable_cpus() <= static_cast<int>(cpus.size()), "some CPUs");
  Root pi;
  pi.write("/proc/cpuinfo",
           "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
           "processor\t: 1\nCPU part\t: 0xd05\n");
  pi.write("/proc/device-tree/model", std::string("Raspberry Pi 5 Model B Rev 1.0") + '\0');
  pi.write("/sys/class/thermal/thermal_zone0/temp", "48200\n");
  pi.write("/sys/class/thermal/thermal_zone1/temp", "0\n");
  pi.write("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n");
  for (int cpu : cpus) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    pi.write(folder + "/cpufreq/scaling_governor", "ondemand\n");
    pi.write(folder + "/cpufreq/scaling_cur_freq", "2400000\n");
    pi.write(folder + "/cpufreq/cpuinfo_max_freq", "2400000\n");
    pi.write(folder + "/thermal_throttle/core_throttle_count", "3\n");
  }
  const Machine before = read_machine(pi.path());
  expect(before.cpu == "Cortex-A76, Cortex-A55", "names of Arm cores");
  expect(before.board == "Raspberry Pi 5 Model B Rev 1.0", "the board");
  expect(before.governor == "ondemand" && before.mhz == 2400 && before.mhz_max == 2400, "frequency");
  expect(before.temperature == 48.2, "temperature");
  expect(before.throttled == 3 * static_cast<int64_t>(cpus.size()), "throttle counts");
  expect(before.under_voltage == 0x50005, "get_throttled");
  Machine after = before;
  after.mhz = 1500;
  after.throttled += 1;
  expect(disturbances(before, after).size() == 3, "throttled, under-voltage, slower");
  after = before;
  after.under_voltage = 0x50000;  // earlier than now
  expect(disturbances(before, after).empty(), "undisturbed");
  Root desktop;
  desktop.write("/proc/cpuinfo", "processor\t: " + std::to_string(cpus[0]) +
                                     "\nmodel name\t: Some CPU\ncpu MHz\t\t: 3600.5\n");
  const Machine machine = read_machine(desktop.path());
  expect(machine.cpu == "Some CPU" && machine.mhz == 3600.5, "a desktop");
  expect(machine.temperature < 0 && machine.throttled < 0 && machine.under_voltage < 0 &&
             machine.governor.empty(),
         "what the system does not tell is absent");
}

void test_cpu_lists() {
  const auto good = parse_cpus("0-2,7");
  expect(good.ok() && good.value() == std::vector<int>({0, 1, 2, 7}), "a list of CPUs");
  for (const char* wrong : {"", "-1", "1-", "3-1", "1,,2", "1 2", "a", "5000", "1-2-3"}) {
    expect(!parse_cpus(wrong).ok(), wrong);
  }
}

void test_json() {
  JsonWriter json;
  json.begin_object().field("a \"b\"", "x\\\n").key("n").begin_array().value(1.5).value(1.0 / 0.0).value(-3);
  json.end_array().key("e").begin_array().end_array().field("t", true).end_object();
  expect(json.text() ==
             "{\n \"a \\\"b\\\"\": \"x\\\\\\u000a\",\n \"n\": [\n  1.5,\n  null,\n  -3\n ],\n \"e\": [],\n "
             "\"t\": true\n}",
         "JSON");
}

void test_options() {
  const Command* bench = nullptr;
  for (const Command* command : all_commands()) {
    if (std::string(command->name) == "bench") bench = command;
  }
  std::string words[] = {"--seconds", "3", "m.edgeq", "--batch=4", "--layers"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  const auto options = Options::parse(*bench, static_cast<int>(argv.size()), argv.data());
  expect(options.ok() && options.value().argument(0) == "m.edgeq" && options.value().has("--layers"),
         "options");
  const auto batch = options.value().integer("--batch", 1, 1, 9);
  const auto seconds = options.value().number("--seconds", 1, 0, 9);
  expect(batch.ok() && batch.value() == 4 && seconds.ok() && seconds.value() == 3, "numbers");
  expect(options.value().integer("--threads", 5, 0, 9).value() == 5, "a default");
  expect(!options.value().integer("--batch", 1, 1, 3).ok(), "out of range");
}

}  // namespace
}  // namespace edgeq

int main() {
  edgeq::test_quota();
  edgeq::test_machine();
  edgeq::test_cpu_lists();
  edgeq::test_json();
  edgeq::test_options();
  if (edgeq::g_failures == 0) std::printf("ok\n");
  return edgeq::g_failures == 0 ? 0 : 1;
}
