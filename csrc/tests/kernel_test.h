#ifndef EDGEQ_TESTS_KERNEL_TEST_H_
#define EDGEQ_TESTS_KERNEL_TEST_H_

#include "kernels/gemm/gemm.h"

namespace edgeq {

/// Checks every kernel variant that this CPU can run against the plain loops, and prints a line a family.
/// EDGEQ_MAX_ISA caps the variants.
///
/// Args:
///   argv: argv[1], where there is one, names the only family to check.
/// Returns: 0 when all agree, 1 when some do not, 2 for an unknown family or cap.
int run_kernel_tests(int argc, char** argv);

/// Checks one matrix kernel, which need not be among the engine's variants.
///
/// Args:
///   quick: Some tens of small shapes, for kernels that are emulated.
/// Returns: How many checks failed; each is printed.
int test_gemm_kernel(const GemmVariant& variant, bool quick);

}  // namespace edgeq

#endif  // EDGEQ_TESTS_KERNEL_TEST_H_
