#ifndef EDGEQ_TESTS_KERNEL_TEST_H_
#define EDGEQ_TESTS_KERNEL_TEST_H_

#include "kernels/depthwise/depthwise.h"
#include "kernels/gemm/gemm.h"

namespace edgeq {

/// Checks every kernel variant that this CPU can run against the plain loops, and prints a line a family.
/// EDGEQ_MAX_ISA caps the variants.
///
/// Args:
///   argv: argv[1], where there is one, names the only family to check.
/// Returns: 0 when all agree, 1 when some do not, 2 for an unknown family or cap.
int run_kernel_tests(int argc, char** argv);

/// Check one kernel, which need not be among the engine's variants.
///
/// Args:
///   most_products: Shapes of more multiply-accumulates are left out, for kernels that are emulated.
/// Returns: How many checks failed; each is printed.
int test_gemm_kernel(const GemmVariant& variant, size_t most_products);
int test_depthwise_kernel(const DepthwiseVariant& variant, size_t most_products);

}  // namespace edgeq

#endif  // EDGEQ_TESTS_KERNEL_TEST_H_
