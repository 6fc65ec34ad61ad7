// A plugin of qemu-user 7.2: how often each block of guest instructions was executed.
//
//     cc -O2 -shared -fPIC count.c -o count.so
//     qemu-aarch64 -plugin ./count.so,out=FILE PROGRAM...
//
// FILE gets a line "vcpus N", then a line a block: its address in hexadecimal, how often it was executed, and its
// instruction words, eight hexadecimal digits each. What an instruction is, and which block is hot, is for the reader.
//
// A block's counter is increased by code that qemu puts at its start. The increase is not atomic, so counts are exact
// for guests of one thread alone, which is what the first line is for.

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Version 1 of qemu's plugin interface, as far as it is used; no package of Debian 12 has its header.
typedef uint64_t qemu_plugin_id_t;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void TranslatedFn(qemu_plugin_id_t id, struct qemu_plugin_tb* block);
typedef void VcpuFn(qemu_plugin_id_t id, unsigned vcpu);
typedef void ExitFn(qemu_plugin_id_t id, void* data);
enum { kInlineAdd = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, TranslatedFn* fn);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, VcpuFn* fn);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, ExitFn* fn, void* data);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, int op, void* counter, uint64_t amount);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn* insn);

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;

typedef struct Block {
  struct Block* next;
  uint64_t address;
  uint64_t executions;
  size_t count;
  uint32_t words[];
} Block;

enum { kBuckets = 1 << 16 };
static Block* buckets[kBuckets];
static unsigned vcpus;
static FILE* out;

// Returns the block's record. qemu translates the same block again after it has emptied its cache of translations; the
// address alone does not identify a block, since another one may begin there that ends elsewhere or was loaded later.
static Block* find(const struct qemu_plugin_tb* tb) {
  const size_t count = qemu_plugin_tb_n_insns(tb);
  Block* block = malloc(sizeof(Block) + count * sizeof(uint32_t));
  if (block == NULL) abort();
  *block = (Block){.address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)), .count = count};
  for (size_t i = 0; i < count; ++i) {
    memcpy(&block->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof(uint32_t));
  }
  Block** place = &buckets[(block->address >> 2) % kBuckets];
  for (; *place != NULL; place = &(*place)->next) {
    if ((*place)->address == block->address && (*place)->count == count &&
        memcmp((*place)->words, block->words, count * sizeof(uint32_t)) == 0) {
      free(block);
      return *place;
    }
  }
  *place = block;
  return block;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, kInlineAdd, &find(tb)->executions, 1);
}

static void vcpu_started(qemu_plugin_id_t id, unsigned vcpu) {
  (void)id, (void)vcpu;
  ++vcpus;
}

static void finish(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  fprintf(out, "vcpus %u\n", vcpus);
  for (size_t i = 0; i < kBuckets; ++i) {
    for (const Block* block = buckets[i]; block != NULL; block = block->next) {
      if (block->executions == 0) continue;
      fprintf(out, "%" PRIx64 " %" PRIu64 " ", block->address, block->executions);
      for (size_t k = 0; k < block->count; ++k) fprintf(out, "%08" PRIx32, block->words[k]);
      fputc('\n', out);
    }
  }
  fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t* info, int argc, char** argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || (out = fopen(argv[0] + 4, "w")) == NULL) {
    fprintf(stderr, "count.so: out=FILE must name a file that can be written\n");
    return 1;
  }
  qemu_plugin_register_vcpu_init_cb(id, vcpu_started);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
