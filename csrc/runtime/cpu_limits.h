#ifndef EDGEQ_RUNTIME_CPU_LIMITS_H_
#define EDGEQ_RUNTIME_CPU_LIMITS_H_

#include <string>
#include <vector>

namespace edgeq {

/// The CPUs that this process may run on, by its affinity mask; empty where the system does not tell.
std::vector<int> allowed_cpus();

/// How many CPUs' worth of time the control groups of this process (version 1 or 2) allow it; 0 without a
/// limit.
///
/// Args:
///   root: Put before the paths of the system's files; "" but in tests.
double quota_cpus(const std::string& root = "");

/// Threads that can run at once: the allowed CPUs, or the quota (rounded up) where it is smaller. At least 1.
int usable_cpus();

/// The first `limit` bytes of a small text file, without white space at its end; "" when it cannot be read.
std::string read_text(const std::string& path, size_t limit = 1 << 16);

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_CPU_LIMITS_H_
