#ifndef EDGEQ_RUNNER_SESSION_OPTIONS_H_
#define EDGEQ_RUNNER_SESSION_OPTIONS_H_

#include <memory>
#include <string>
#include <vector>

#include "runner/command.h"
#include "runtime/session.h"

namespace edgeq {

// Options of every command that runs a model.
constexpr OptionSpec kThreadsOption = {"--threads", "N",
                                       "threads, 1 to 32; 0: as many as the process may use (default 1)"};
constexpr OptionSpec kCpusOption = {"--cpus", "LIST", "keep the process on these CPUs, such as 4-7"};
constexpr OptionSpec kIsaOption = {"--isa", "LEVEL",
                                   "highest instruction set to use (default: EDGEQ_MAX_ISA, else all)"};

/// Loads a model as --threads, --cpus and --isa say. Errors name the file.
Result<std::unique_ptr<Session>> open_session(const Options& options, const std::string& path,
                                              bool keep_all = false);

/// Elements of one image at an end.
int64_t elements_of(const EndInfo& end);

/// "x0 [N, 3, 224, 224] int8, scale 0.018, zero point -14"
std::string end_text(const EndInfo& end);

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_SESSION_OPTIONS_H_
