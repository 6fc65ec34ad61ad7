// edgeq-runner: runs, times and checks .edgeq models where there is no Python. docs/runner.md is its manual.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "runner/command.h"
#include "runner/outputs.h"

#if defined(__GLIBCXX__)
// GNU's handler of uncaught exceptions prints the type's name, for which it brings a demangler of 50 KB. The
// linker takes this one in its place.
namespace __gnu_cxx {
void __verbose_terminate_handler() {
  std::fputs("edgeq-runner: ended by an unexpected error; please report it\n", stderr);
  std::abort();
}
}  // namespace __gnu_cxx
#endif

namespace edgeq {
namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;

void print_overview(std::FILE* to) {
  std::fprintf(to, "usage: edgeq-runner COMMAND ...\n\n");
  for (const Command* command : all_commands())
    std::fprintf(to, "  %-10s %s\n", command->name, command->summary);
  std::fprintf(to, "\nedgeq-runner COMMAND --help tells more. EDGEQ_MAX_ISA caps the instruction set.\n");
}

int run_command(const Command& command, int argc, char* const* argv) {
  for (int i = 0; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") != 0 && std::strcmp(argv[i], "-h") != 0) continue;
    std::fputs(usage(command).c_str(), stdout);
    return 0;
  }
  const auto options = Options::parse(command, argc, argv);
  const Status status = options.ok() ? command.run(options.value()) : options.status();
  if (status.ok()) return 0;
  std::fflush(stdout);
  std::fprintf(stderr, "edgeq-runner: %s\n", status.message().c_str());
  return status.code() == StatusCode::kInvalidArgument ? kUsage : kFailure;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    print_overview(stderr);
    return kUsage;
  }
  if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) {
    print_overview(stdout);
    return 0;
  }
  for (const Command* command : all_commands()) {
    if (std::strcmp(argv[1], command->name) == 0) return run_command(*command, argc - 2, argv + 2);
  }
  std::fprintf(stderr, "edgeq-runner: there is no command \"%.80s\"; see edgeq-runner --help\n", argv[1]);
  return kUsage;
}

}  // namespace
}  // namespace edgeq

int main(int argc, char** argv) {
  edgeq::stop_on_signals();
  int status = 1;
  try {
    status = edgeq::main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("edgeq-runner: no memory left; use a smaller batch or end other programs\n", stderr);
  }
  edgeq::die_if_stopped();
  return status;
}
