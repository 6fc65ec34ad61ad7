#include "runner/command.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "ops/check.h"

namespace edgeq {

#define EDGEQ_COMMAND(name) extern const Command k_command_##name;
#include "runner/commands.inc"
#undef EDGEQ_COMMAND

const std::vector<const Command*>& all_commands() {
  static const std::vector<const Command*> commands = {
#define EDGEQ_COMMAND(name) &k_command_##name,
#include "runner/commands.inc"
#undef EDGEQ_COMMAND
  };
  return commands;
}

std::string usage(const Command& command) {
  std::string text =
      format("usage: edgeq-runner %s%s%s%s\n\n%s\n", command.name, *command.arguments == 0 ? "" : " ",
             command.arguments, command.options.empty() ? "" : " [OPTION]...", command.summary);
  if (!command.options.empty()) text += "\n";
  for (const OptionSpec& option : command.options) {
    const std::string left = std::string(option.name) + (option.value == nullptr ? "" : " ") +
                             (option.value == nullptr ? "" : option.value);
    text += format("  %-18s %s\n", left.c_str(), option.help);
  }
  return text;
}

Result<Options> Options::parse(const Command& command, int argc, char* const* argv) {
  Options parsed;
  bool only_arguments = false;
  for (int i = 0; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (only_arguments || word.size() < 2 || word[0] != '-') {
      parsed.arguments_.emplace_back(word);
      continue;
    }
    if (word == "--") {
      only_arguments = true;
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name(word.substr(0, equals));
    const OptionSpec* spec = nullptr;
    for (const OptionSpec& option : command.options) {
      if (name == option.name) spec = &option;
    }
    if (spec == nullptr) {
      return Status::invalid_argument(format("%s has no option %.80s; see edgeq-runner %s --help",
                                             command.name, name.c_str(), command.name));
    }
    if (spec->value == nullptr) {
      if (equals != std::string_view::npos)
        return Status::invalid_argument(name + " takes no value; leave it out");
      parsed.options_.emplace_back(name, "");
    } else if (equals != std::string_view::npos) {
      parsed.options_.emplace_back(name, word.substr(equals + 1));
    } else if (i + 1 < argc) {
      parsed.options_.emplace_back(name, argv[++i]);
    } else {
      return Status::invalid_argument(name + " needs a value: " + name + " " + spec->value);
    }
  }
  const size_t count = parsed.arguments_.size();
  if (count < command.arguments_min || count > command.arguments_max) {
    return Status::invalid_argument(
        format("%s takes %s, but %zu arguments were given; see edgeq-runner %s --help", command.name,
               *command.arguments == 0 ? "no argument" : command.arguments, count, command.name));
  }
  return parsed;
}

const std::string* Options::find(std::string_view name) const {
  for (size_t i = options_.size(); i-- > 0;) {
    if (options_[i].first == name) return &options_[i].second;
  }
  return nullptr;
}

std::string Options::text(std::string_view name, const char* fallback) const {
  const std::string* value = find(name);
  return value == nullptr ? fallback : *value;
}

std::vector<std::string> Options::all(std::string_view name) const {
  std::vector<std::string> values;
  for (const auto& option : options_) {
    if (option.first == name) values.push_back(option.second);
  }
  return values;
}

Result<int64_t> Options::integer(std::string_view name, int64_t fallback, int64_t low, int64_t high) const {
  const std::string* value = find(name);
  if (value == nullptr) return fallback;
  char* end = nullptr;
  errno = 0;
  const long long parsed = std::strtoll(value->c_str(), &end, 10);
  if (errno != 0 || end == value->c_str() || *end != '\0' || parsed < low || parsed > high) {
    return Status::invalid_argument(
        format("%.*s takes a whole number from %lld to %lld, not \"%.40s\"", static_cast<int>(name.size()),
               name.data(), static_cast<long long>(low), static_cast<long long>(high), value->c_str()));
  }
  return parsed;
}

Result<double> Options::number(std::string_view name, double fallback, double low, double high) const {
  const std::string* value = find(name);
  if (value == nullptr) return fallback;
  char* end = nullptr;
  const double parsed = std::strtod(value->c_str(), &end);
  if (end == value->c_str() || *end != '\0' || !(parsed >= low && parsed <= high)) {
    return Status::invalid_argument(format("%.*s takes a number from %g to %g, not \"%.40s\"",
                                           static_cast<int>(name.size()), name.data(), low, high,
                                           value->c_str()));
  }
  return parsed;
}

}  // namespace edgeq
