#include "runtime/cpu_limits.h"

#include <fcntl.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <thread>

namespace edgeq {
namespace {

/// quota / period, or 0 when either is no positive number ("max", "-1").
double ratio(const std::string& quota, const std::string& period) {
  const double time = std::strtod(quota.c_str(), nullptr);
  const double every = std::strtod(period.c_str(), nullptr);
  return time > 0 && every > 0 ? time / every : 0;
}

/// The smallest limit from `group` up to the top of the hierarchy mounted at `mount`. Inside a container the
/// group's path may be that of the host, which is not there: then the top, which the container sees as its
/// own, decides.
template <typename Limit>
double smallest(const std::string& mount, std::string group, Limit limit) {
  double found = 0;
  while (true) {
    const double here = limit(mount + group + "/");
    if (here > 0 && (found == 0 || here < found)) found = here;
    if (group.empty()) return found;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

std::string read_text(const std::string& path, size_t limit) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::string();
  std::string text(limit, '\0');
  size_t size = 0;
  while (size < limit) {
    const ssize_t done = ::read(file, text.data() + size, limit - size);
    if (done <= 0) break;
    size += static_cast<size_t>(done);
  }
  ::close(file);
  while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' ' || text[size - 1] == '\0')) --size;
  text.resize(size);
  return text;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  // 1,024 CPUs fit the fixed set; the kernel refuses it on larger machines, where a bigger one is tried.
  for (int capacity = CPU_SETSIZE; capacity <= 1 << 16; capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(capacity);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, set);
    const bool done = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; done && cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (done) break;
  }
#endif
  return cpus;
}

double quota_cpus(const std::string& root) {
  const std::string groups = read_text(root + "/proc/self/cgroup");
  double found = 0;
  for (size_t begin = 0; begin < groups.size();) {
    const size_t end = std::min(groups.find('\n', begin), groups.size());
    const std::string line = groups.substr(begin, end - begin);
    begin = end + 1;
    // "0::/path" is version 2; "4:cpu,cpuacct:/path" names the controllers of version 1.
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    double limit = 0;
    if (controllers == ",,") {
      limit = smallest(root + "/sys/fs/cgroup", path, [](const std::string& folder) {
        const std::string text = read_text(folder + "cpu.max");
        const size_t space = text.find(' ');
        return space == std::string::npos ? 0 : ratio(text.substr(0, space), text.substr(space + 1));
      });
    } else if (controllers.find(",cpu,") != std::string::npos) {
      limit = smallest(root + "/sys/fs/cgroup/cpu", path, [](const std::string& folder) {
        return ratio(read_text(folder + "cpu.cfs_quota_us"), read_text(folder + "cpu.cfs_period_us"));
      });
    }
    if (limit > 0 && (found == 0 || limit < found)) found = limit;
  }
  return found;
}

int usable_cpus() {
  size_t cpus = allowed_cpus().size();
  if (cpus == 0) cpus = std::thread::hardware_concurrency();
  const double quota = quota_cpus();
  if (quota > 0) cpus = std::min(cpus, static_cast<size_t>(std::ceil(quota)));
  return std::max(1, static_cast<int>(cpus));
}

}  // namespace edgeq
