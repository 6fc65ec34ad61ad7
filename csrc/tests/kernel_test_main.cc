// Usage: kernel_test [family]. EDGEQ_MAX_ISA caps the variants.

#include "tests/kernel_test.h"

int main(int argc, char** argv) { return edgeq::run_kernel_tests(argc, argv); }
