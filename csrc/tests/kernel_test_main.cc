// Usage: kernel_test [family]. EDGEQ_MAX_ISA caps the variants.

#include <cstdio>

#include "tests/kernel_test.h"

int main(int argc, char** argv) {
  const int status = edgeq::run_kernel_tests(argc, argv);
  if (status == 2)
    std::fputs("kernel_test: there is no such family, or EDGEQ_MAX_ISA names no level\n", stderr);
  return status;
}
