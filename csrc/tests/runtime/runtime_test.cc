// The runtime without Python: thread pool, arena layout, hash, errors of the reader, and sessions whose
// results must not depend on threads, batch or instruction set.
//
// usage: runtime_test [MODEL.edgeq]...

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/xxh64.h"
#include "runtime/model_file.h"
#include "runtime/session.h"
#include "runtime/thread_pool.h"

namespace edgeq {
namespace {

int g_failures = 0;

#define EXPECT(condition, ...)                                             \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fprintf(stderr, "\n");                                          \
      ++g_failures;                                                        \
    }                                                                      \
  } while (false)

void test_hash() {
  // Values of the reference implementation (xxhsum -H64) for "", "a" and "abc".
  const auto hash = [](const char* text) {
    return xxh64(reinterpret_cast<const uint8_t*>(text), std::strlen(text));
  };
  EXPECT(hash("") == 0xEF46DB3751D8E999u, "%llx", static_cast<unsigned long long>(hash("")));
  EXPECT(hash("a") == 0xD24EC4F1A98C6E5Bu, "%llx", static_cast<unsigned long long>(hash("a")));
  EXPECT(hash("abc") == 0x44BC2CF5AD770999u, "%llx", static_cast<unsigned long long>(hash("abc")));
}

/// Steps in which each part checks what every part wrote in the step before, and writes its own.
struct Team {
  std::vector<ThreadPool::Step> steps;
  std::vector<std::vector<int64_t>> values;  // a step: a part: how often it was computed
  int64_t run = 0;
  std::atomic<int> wrong{0};
  int finished = 0;  // by the chain of steps alone: needs no atomic

  static void compute(void* context, int step, int part, int) {
    Team& team = *static_cast<Team*>(context);
    const size_t at = static_cast<size_t>(step);
    if (at > 0) {
      for (int64_t value : team.values[at - 1]) team.wrong += value != team.run;
    }
    if (team.values[at][static_cast<size_t>(part)]++ != team.run - 1) ++team.wrong;
  }

  static void finish(void* context, int step) {
    Team& team = *static_cast<Team*>(context);
    if (team.finished++ != step) ++team.wrong;
    for (int64_t value : team.values[static_cast<size_t>(step)]) team.wrong += value != team.run;
  }
};

void test_thread_pool() {
  for (int threads : {1, 2, 3, 7, 32}) {
    ThreadPool pool(threads);
    Team team;
    for (int parts : {1, 2, 1, 1, 5, 32, 3, 1}) {
      team.steps.push_back({static_cast<uint8_t>(parts), parts != 3});
      team.values.emplace_back(static_cast<size_t>(parts), 0);
    }
    for (int round = 0; round < 500; ++round) {
      ++team.run;
      team.finished = 0;
      ThreadPool::Program program;
      program.steps = team.steps.data();
      program.step_count = static_cast<int>(team.steps.size());
      program.context = &team;
      program.compute = Team::compute;
      if (round % 2 == 0) program.finished = Team::finish;
      pool.run(program);
      for (int64_t value : team.values.back()) team.wrong += value != team.run;
      // Long enough for the workers to go to sleep now and then.
      if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    EXPECT(team.wrong == 0, "%d threads: %d wrong values", threads, team.wrong.load());
    pool.run(ThreadPool::Program());
  }
}

void test_arena_layout() {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<Buffer> buffers(1 + random() % 40);
    for (Buffer& buffer : buffers) {
      buffer.bytes_per_image = 1 + random() % 5000;
      buffer.first = static_cast<int>(random() % 30) - 1;
      buffer.last = buffer.first + static_cast<int>(random() % 6);
    }
    const int64_t batch = 1 + random() % 4;
    const auto layout = layout_arena(buffers, batch, 1 << 30);
    EXPECT(layout.ok(), "%s", layout.status().message().c_str());
    for (size_t i = 0; i < buffers.size(); ++i) {
      const uint64_t begin = layout.value().offset[i];
      const uint64_t end = begin + static_cast<uint64_t>(buffers[i].bytes_per_image * batch) + kReadSlack;
      EXPECT(begin % 64 == 0 && end <= layout.value().bytes, "buffer %zu at %llu", i,
             static_cast<unsigned long long>(begin));
      for (size_t k = 0; k < i; ++k) {
        const bool together = buffers[i].first <= buffers[k].last && buffers[k].first <= buffers[i].last;
        const uint64_t other = layout.value().offset[k];
        const uint64_t other_end =
            other + static_cast<uint64_t>(buffers[k].bytes_per_image * batch) + kReadSlack;
        EXPECT(!together || end <= other || other_end <= begin, "buffers %zu and %zu overlap", i, k);
      }
    }
  }
  // A chain needs no more than its largest pair; neither many nodes nor long lives take long.
  std::vector<Buffer> chain(20000);
  uint64_t largest = 0;
  for (size_t i = 0; i < chain.size(); ++i) {
    chain[i] = {static_cast<int64_t>(64 * (1 + random() % 100)), static_cast<int>(i),
                static_cast<int>(i) + 1};
    const int64_t before = i == 0 ? 0 : chain[i - 1].bytes_per_image;
    largest = std::max(largest, static_cast<uint64_t>(before + chain[i].bytes_per_image) + 2 * kReadSlack);
  }
  const auto of_chain = layout_arena(chain, 1, 1 << 30);
  EXPECT(of_chain.ok() && of_chain.value().bytes <= largest * 12 / 10,
         "%llu bytes for a chain that needs %llu", static_cast<unsigned long long>(of_chain.value().bytes),
         static_cast<unsigned long long>(largest));
  uint64_t sum = 0;
  for (Buffer& buffer : chain) {
    buffer.first = -1;
    buffer.last = 20000;
    sum += static_cast<uint64_t>(buffer.bytes_per_image) + kReadSlack;
  }
  const auto of_all = layout_arena(chain, 1, 1 << 30);
  EXPECT(of_all.ok() && of_all.value().bytes == sum, "%llu bytes for buffers of %llu",
         static_cast<unsigned long long>(of_all.value().bytes), static_cast<unsigned long long>(sum));
  const std::vector<Buffer> huge = {{INT64_MAX / 2, 0, 0}};
  EXPECT(!layout_arena(huge, INT64_MAX, 1 << 30).ok(), "an absurd arena was accepted");
}

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::vector<uint8_t>((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
}

int64_t elements(const EndInfo& end) {
  int64_t count = 1;
  for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= end.shape[axis];
  return count;
}

/// Runs a batch of float inputs that depend on the image's index alone; all outputs one after the other.
std::vector<float> run_model(Session& session, int64_t batch) {
  std::vector<std::vector<float>> in, out;
  std::vector<InputArray> inputs;
  std::vector<OutputArray> outputs;
  for (const EndInfo& end : session.inputs()) {
    in.emplace_back(batch * elements(end));
    for (size_t i = 0; i < in.back().size(); ++i)
      in.back()[i] = static_cast<float>(i * 7919 % 511) * 0.02f - 5.0f;
  }
  for (auto& values : in) inputs.push_back({values.data(), true});
  for (const EndInfo& end : session.outputs()) out.emplace_back(batch * elements(end));
  for (auto& values : out) outputs.push_back({values.data(), true});
  const Status status = session.run(inputs, outputs, batch);
  EXPECT(status.ok(), "%s", status.message().c_str());
  std::vector<float> all;
  for (const auto& values : out) all.insert(all.end(), values.begin(), values.end());
  return all;
}

/// The same of uint8 images, in memory that ends where they do; nothing where the model takes none.
std::vector<float> run_images(Session& session, int64_t batch) {
  if (!session.takes_images().ok()) return {};
  int64_t size = batch;
  for (int64_t axis : session.image_shape()) size *= axis;
  std::vector<uint8_t> images(static_cast<size_t>(size));
  for (size_t i = 0; i < images.size(); ++i) images[i] = static_cast<uint8_t>(i * 7919 % 509);
  std::vector<std::vector<float>> out;
  std::vector<OutputArray> outputs;
  for (const EndInfo& end : session.outputs()) out.emplace_back(batch * elements(end));
  for (auto& values : out) outputs.push_back({values.data(), true});
  const Status status = session.run_images(images.data(), outputs, batch);
  EXPECT(status.ok(), "%s", status.message().c_str());
  std::vector<float> all;
  for (const auto& values : out) all.insert(all.end(), values.begin(), values.end());
  return all;
}

void test_model(const std::string& path) {
  SessionOptions options;
  options.max_isa = "scalar";
  auto reference = Session::load(path, options);
  EXPECT(reference.ok(), "%s: %s", path.c_str(), reference.status().message().c_str());
  if (!reference.ok()) return;
  const std::vector<float> wanted1 = run_model(*reference.value(), 1);
  const std::vector<float> wanted3 = run_model(*reference.value(), 3);
  const std::vector<float> images1 = run_images(*reference.value(), 1);
  const std::vector<float> images3 = run_images(*reference.value(), 3);
  for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512vnni", "avx512vbmi", "amxint8"}) {
    for (int threads : {1, 2, 5}) {
      options.max_isa = isa;
      options.threads = threads;
      options.split_cost = 0;
      auto session = Session::load(path, options);
      EXPECT(session.ok(), "%s", session.status().message().c_str());
      EXPECT(run_model(*session.value(), 1) == wanted1, "%s: %s, %d threads", path.c_str(), isa, threads);
      EXPECT(run_model(*session.value(), 3) == wanted3, "%s: %s, %d threads", path.c_str(), isa, threads);
      // Images one at a time (a thread): the arena of a batch is then that of a group.
      options.group_bytes = 1;
      auto grouped = Session::load(path, options);
      EXPECT(grouped.ok(), "%s", grouped.status().message().c_str());
      EXPECT(run_model(*grouped.value(), 3) == wanted3, "%s: groups, %s, %d threads", path.c_str(), isa,
             threads);
      if (threads < 3) {
        const auto arena = grouped.value()->arena_bytes(3), whole = session.value()->arena_bytes(3);
        EXPECT(arena.ok() && whole.ok() && arena.value() < whole.value(), "%s: the arena of groups",
               path.c_str());
      }
      options.group_bytes = 0;
      EXPECT(run_images(*session.value(), 1) == images1, "%s: an image, %s", path.c_str(), isa);
      EXPECT(run_images(*session.value(), 3) == images3, "%s: images, %s", path.c_str(), isa);
      // Two callers at once: the session makes one wait.
      std::vector<float> beside;
      std::thread other([&] { beside = run_model(*session.value(), 3); });
      EXPECT(run_model(*session.value(), 1) == wanted1, "%s: beside another caller", path.c_str());
      other.join();
      EXPECT(beside == wanted3, "%s: beside another caller", path.c_str());
    }
  }
  const std::vector<uint8_t> file = read_file(path);
  options = SessionOptions();
  for (size_t size = 0; size < file.size(); size += 1 + file.size() / 97) {
    const auto cut = Session::load(file.data(), size, options);
    EXPECT(!cut.ok() && !cut.status().message().empty(), "%s cut at %zu was accepted", path.c_str(), size);
  }
  options.max_memory_bytes = 64;
  const auto starved = Session::load(path, options);
  EXPECT(starved.status().code() == StatusCode::kOutOfMemory, "%s", starved.status().message().c_str());
}

void test_errors() {
  SessionOptions options;
  EXPECT(Session::load("/nonexistent.edgeq", options).status().code() == StatusCode::kIo,
         "a file that is not there");
  options.threads = 1000;
  EXPECT(Session::load("/nonexistent.edgeq", options).status().code() != StatusCode::kOk, "1000 threads");
  options.threads = 1;
  options.max_isa = "nonsense";
  const uint8_t nothing[64] = {};
  EXPECT(Session::load(nothing, sizeof nothing, options).status().code() == StatusCode::kInvalidArgument,
         "isa");
  options.max_isa = "";
  EXPECT(Session::load(nothing, sizeof nothing, options).status().code() == StatusCode::kInvalidModel,
         "zeros");
}

}  // namespace
}  // namespace edgeq

int main(int argc, char** argv) {
  edgeq::test_hash();
  edgeq::test_thread_pool();
  edgeq::test_arena_layout();
  edgeq::test_errors();
  for (int i = 1; i < argc; ++i) edgeq::test_model(argv[i]);
  if (edgeq::g_failures > 0) {
    std::fprintf(stderr, "%d failures\n", edgeq::g_failures);
    return 1;
  }
  std::printf("ok, %d models\n", argc - 1);
  return 0;
}
