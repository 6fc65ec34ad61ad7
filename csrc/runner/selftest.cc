// edgeq-runner selftest: the kernel tests, and whole models, on the machine that will run them.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/cpu_features.h"
#include "ops/check.h"
#include "runner/random_input.h"
#include "runner/session_options.h"
#include "tests/kernel_test.h"

namespace edgeq {
namespace {

/// Compares a model's outputs at every instruction set and some thread counts with the plain loops'.
Status check_model(const std::string& path, IsaSet isas) {
  std::vector<std::vector<uint8_t>> wanted;
  for (const Isa isa : isas.levels()) {
    for (const int threads : {1, 2, 3}) {
      SessionOptions options;
      options.max_isa = isa_name(isa);
      options.threads = threads;
      auto session = Session::load(path, options);
      if (!session.ok()) return Status(session.status().code(), path + ": " + session.status().message());
      RandomInput input(*session.value(), /*batch=*/2, /*codes=*/false);
      EDGEQ_RETURN_IF_ERROR(input.run());
      if (wanted.empty()) wanted = input.results();
      if (input.results() != wanted) {
        return Status::unsupported(
            format("%s: %s with %d threads does not compute what the plain loops compute; cap the "
                   "instruction set with EDGEQ_MAX_ISA and report it",
                   path.c_str(), isa_name(isa), threads));
      }
    }
    std::printf("%-12s %s: the plain loops' outputs with 1, 2 and 3 threads\n", isa_name(isa), path.c_str());
  }
  return Status();
}

Status run(const Options& options) {
  const std::string cap = options.text("--isa");
  if (!cap.empty()) ::setenv("EDGEQ_MAX_ISA", cap.c_str(), 1);
  const auto isas = usable_isas(std::getenv("EDGEQ_MAX_ISA"));
  EDGEQ_RETURN_IF_ERROR(isas.status());
  std::string program = "edgeq-runner";
  std::string family = options.text("--family");
  char* argv[] = {program.data(), family.data(), nullptr};
  const int status = run_kernel_tests(family.empty() ? 1 : 2, argv);
  if (status == 2)
    return Status::invalid_argument("--family names no family of kernels; leave it out to check all");
  if (status != 0) {
    return Status::unsupported(
        "FAILED: kernels do not compute what the plain loops compute on this CPU; cap the instruction set "
        "with "
        "EDGEQ_MAX_ISA and report it");
  }
  for (size_t i = 0; i < options.argument_count(); ++i) {
    EDGEQ_RETURN_IF_ERROR(check_model(options.argument(i), isas.value()));
  }
  std::printf("PASSED: every kernel that this CPU can run computes what the plain loops compute\n");
  return Status();
}

}  // namespace

extern const Command k_command_selftest;
const Command k_command_selftest = {
    "selftest",
    "[MODEL]...",
    0,
    1000,
    "Check every kernel that this CPU can run, and models, against the plain loops.",
    {{"--family", "NAME", "check one family of kernels only (gemm, depthwise, ...)"}, kIsaOption},
    run};

}  // namespace edgeq
