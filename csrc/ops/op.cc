#include "ops/op.h"

#include "ops/check.h"

namespace edgeq {

#define EDGEQ_OP(number, name) extern const OpDef k_op_##name;
#include "ops/ops.inc"
#undef EDGEQ_OP

const std::vector<const OpDef*>& all_ops() {
  static const std::vector<const OpDef*> ops = {
#define EDGEQ_OP(number, name) &k_op_##name,
#include "ops/ops.inc"
#undef EDGEQ_OP
  };
  return ops;
}

const OpDef* find_op(uint16_t code) {
  switch (code) {
#define EDGEQ_OP(number, name) \
  case number:                 \
    return &k_op_##name;
#include "ops/ops.inc"
#undef EDGEQ_OP
    default:
      return nullptr;
  }
}

Status MemoryBudget::take(uint64_t bytes, std::string_view what) {
  if (bytes > left_) {
    return Status::out_of_memory(
        format("%.*s needs %llu bytes, but only %llu of the %llu that the session may use are left; raise "
               "max_memory_bytes if the model is trusted",
               static_cast<int>(what.size()), what.data(), static_cast<unsigned long long>(bytes),
               static_cast<unsigned long long>(left_), static_cast<unsigned long long>(limit_)));
  }
  left_ -= bytes;
  return Status();
}

void Target::packed(const Tensor& constant, size_t elements) const {
  if (mapped_file) drop_file_pages(constant.data, constant.type == DataType::kInt4 ? elements / 2 : elements);
}

Status allocate(AlignedBuffer& buffer, uint64_t bytes, std::string_view what, MemoryBudget& budget) {
  EDGEQ_RETURN_IF_ERROR(budget.take(bytes + AlignedBuffer::kAlignment, what));
  if (budget.slab() != nullptr && bytes <= SIZE_MAX) {
    uint8_t* taken = budget.slab()->take(static_cast<size_t>(bytes));
    if (taken != nullptr) {
      buffer.borrow(taken, static_cast<size_t>(bytes));
      return Status();
    }
  }
  if (!buffer.allocate(bytes)) {
    return Status::out_of_memory(format("no memory for %.*s (%llu bytes)", static_cast<int>(what.size()),
                                        what.data(), static_cast<unsigned long long>(bytes)));
  }
  return Status();
}

void table_to_act(const uint8_t* codes, uint8_t* table) {
  // The kernels' index u holds the code int8(u ^ kActXor); the file's index is that code + 128, which is
  // the code's byte with its top bit flipped.
  for (int u = 0; u < 256; ++u) table[u] = codes[u ^ kActXor ^ 0x80] ^ kActXor;
}

}  // namespace edgeq
