#ifndef EDGEQ_RUNNER_COMMAND_H_
#define EDGEQ_RUNNER_COMMAND_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace edgeq {

class Options;

struct OptionSpec {
  const char* name;   // "--threads"
  const char* value;  // what stands behind it in the usage ("N"); null for a switch
  const char* help;
};

/// One command of edgeq-runner: a file of its own and a line in commands.inc.
struct Command {
  const char* name;
  const char* arguments;  // of the usage line: "MODEL", "[MODEL]"
  size_t arguments_min;
  size_t arguments_max;
  const char* summary;
  std::vector<OptionSpec> options;
  /// kInvalidArgument is an error of usage (exit status 2); every other error ends with 1.
  Status (*run)(const Options& options);
};

/// A command line, checked against its command.
class Options {
 public:
  /// Reads argv[0], argv[1], ... behind the command's name: `--name VALUE`, `--name=VALUE`, switches and
  /// arguments in any order; `--` ends the options.
  static Result<Options> parse(const Command& command, int argc, char* const* argv);

  size_t argument_count() const { return arguments_.size(); }
  const std::string& argument(size_t index) const { return arguments_[index]; }

  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// The option's last value, or `fallback`.
  std::string text(std::string_view name, const char* fallback = "") const;
  /// Every value of an option that may stand several times, in order.
  std::vector<std::string> all(std::string_view name) const;
  /// A whole number from `low` to `high`.
  Result<int64_t> integer(std::string_view name, int64_t fallback, int64_t low, int64_t high) const;
  Result<double> number(std::string_view name, double fallback, double low, double high) const;

 private:
  const std::string* find(std::string_view name) const;

  std::vector<std::string> arguments_;
  std::vector<std::pair<std::string, std::string>> options_;
};

/// The usage text of one command.
std::string usage(const Command& command);

/// Every command, in the order of commands.inc.
const std::vector<const Command*>& all_commands();

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_COMMAND_H_
