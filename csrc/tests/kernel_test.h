#ifndef EDGEQ_TESTS_KERNEL_TEST_H_
#define EDGEQ_TESTS_KERNEL_TEST_H_

namespace edgeq {

/// Checks every kernel variant that this CPU can run against the plain loops, and prints a line a family.
/// EDGEQ_MAX_ISA caps the variants.
///
/// Args:
///   argv: argv[1], where there is one, names the only family to check.
/// Returns: 0 when all agree, 1 when some do not, 2 for an unknown family or cap.
int run_kernel_tests(int argc, char** argv);

}  // namespace edgeq

#endif  // EDGEQ_TESTS_KERNEL_TEST_H_
