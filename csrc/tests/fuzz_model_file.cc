// Damages valid .edgeq files in seeded ways and loads each result: it must give a clear error, or a session
// that runs. Built with the sanitizers, so that every access outside of its memory ends the program; it also
// ends when one file takes more than a second or more than 64 MiB beyond its size.
//
// usage: fuzz_model_file COUNT [SEED] FILE...

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/xxh64.h"
#include "runtime/session.h"

#if defined(__SANITIZE_ADDRESS__)
// From the sanitizers' allocator_interface.h, which GCC does not install.
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* address);
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                                         void (*on_free)(const volatile void*));
#endif

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

constexpr size_t kMemory = size_t{64} << 20;
constexpr size_t kSessionMemory = size_t{48} << 20;  // leaves room for what the reader itself keeps
constexpr double kSeconds = 1.0;
constexpr int64_t kMostWork = 4000000;  // models above it are valid, but take long under the sanitizers

// Caps: a level that the CPU lacks caps all the same.
constexpr const char* kIsas[] = {"", "scalar", "avx2", "avxvnni", "avx512vnni"};

size_t g_live = 0;
size_t g_peak = 0;

#if defined(__SANITIZE_ADDRESS__)
void on_malloc(const volatile void*, size_t size) {
  g_live += size;
  g_peak = std::max(g_peak, g_live);
}
void on_free(const volatile void* address) {
  if (address == nullptr) return;
  const size_t size = __sanitizer_get_allocated_size(address);
  g_live -= std::min(size, g_live);
}
#endif

uint64_t below(Random& random, uint64_t limit) { return limit == 0 ? 0 : random() % limit; }

template <typename T>
T get(const Bytes& file, size_t at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof value);
  return value;
}

template <typename T>
void put(Bytes& file, size_t at, T value) {
  if (at + sizeof value <= file.size()) std::memcpy(file.data() + at, &value, sizeof value);
}

struct Section {
  size_t offset, bytes;
};

std::vector<Section> sections_of(const Bytes& file) {
  std::vector<Section> sections;
  if (file.size() < 64) return sections;
  const uint32_t count = std::min<uint32_t>(get<uint32_t>(file, 12), 16);
  for (uint32_t i = 0; i < count && 64 + 24 * (i + 1) <= file.size(); ++i) {
    const uint64_t offset = get<uint64_t>(file, 64 + 24 * i + 8);
    const uint64_t bytes = get<uint64_t>(file, 64 + 24 * i + 16);
    if (offset <= file.size() && bytes <= file.size() - offset && bytes > 0) {
      sections.push_back({static_cast<size_t>(offset), static_cast<size_t>(bytes)});
    }
  }
  return sections;
}

/// A position, mostly where the structure is: weights are most of a file and say little.
size_t place(const Bytes& file, Random& random) {
  const std::vector<Section> sections = sections_of(file);
  if (!sections.empty() && below(random, 100) < 85) {
    const uint64_t choice = below(random, sections.size() + 1);
    if (choice == sections.size())
      return below(random, std::min<size_t>(file.size(), 64 + 24 * sections.size()));
    const Section& section = sections[choice];
    return section.offset + below(random, std::min<size_t>(section.bytes, 1 << 16));
  }
  return below(random, file.size());
}

uint32_t absurd(Random& random) {
  static const uint32_t values[] = {0,
                                    1,
                                    2,
                                    3,
                                    7,
                                    8,
                                    63,
                                    64,
                                    65,
                                    127,
                                    128,
                                    255,
                                    256,
                                    0x7FFF,
                                    0x8000,
                                    0xFFFF,
                                    0x10000,
                                    1 << 24,
                                    (1 << 24) + 1,
                                    0x7FFFFFFF,
                                    0x80000000,
                                    0xFFFFFFF8,
                                    0xFFFFFFFF,
                                    0x7F800000,
                                    0x7FC00000,
                                    0x00000001,
                                    0x7F7FFFFF,
                                    0x3F800000};
  return values[below(random, std::size(values))];
}

void mutate(Bytes& file, Random& random, const std::vector<Bytes>& others) {
  const size_t at = place(file, random);
  switch (below(random, 10)) {
    case 0:
      if (below(random, 3) > 0) {
        file.resize(below(random, file.size() + 1));
      } else {
        file.resize(file.size() + below(random, 200));
      }
      break;
    case 1:
    case 2:
      if (!file.empty()) file[at] ^= static_cast<uint8_t>(1u << below(random, 8));
      break;
    case 3:
      if (!file.empty()) file[at] = static_cast<uint8_t>(random());
      break;
    case 4:
    case 5:
      put(file, at / 4 * 4, absurd(random));
      break;
    case 6:
      put(file, at / 8 * 8, below(random, 2) ? uint64_t{absurd(random)} << below(random, 33) : random());
      break;
    case 7: {
      const uint32_t steps[] = {1, 2, 3, 4, 8, 64};
      const uint32_t step = steps[below(random, 6)];
      if (at / 4 * 4 + 4 <= file.size()) {
        const uint32_t value = get<uint32_t>(file, at / 4 * 4);
        put(file, at / 4 * 4, below(random, 2) ? value + step : value - step);
      }
      break;
    }
    case 8: {
      const Bytes& source = below(random, 2) ? others[below(random, others.size())] : file;
      const size_t lengths[] = {4, 8, 12, 16, 24, 88, 1 + static_cast<size_t>(below(random, 512))};
      const size_t length = lengths[below(random, 7)];
      if (source.size() <= length || file.size() <= length) break;
      const size_t from = below(random, source.size() - length) / 4 * 4;
      const Bytes piece(source.begin() + static_cast<int64_t>(from),
                        source.begin() + static_cast<int64_t>(from + length));
      const size_t to = std::min(at / 4 * 4, file.size() - length);
      const auto begin = file.begin() + static_cast<int64_t>(to);
      switch (below(random, 4)) {
        case 0:
          file.insert(begin, piece.begin(), piece.end());
          break;
        case 1:
          file.erase(begin, begin + static_cast<int64_t>(length));
          break;
        default:
          std::copy(piece.begin(), piece.end(), begin);
          break;
      }
      break;
    }
    default: {
      const size_t count = sections_of(file).size();
      if (count == 0) break;
      const size_t entry = 64 + 24 * below(random, count);
      const uint32_t kinds[] = {0, 1, 2, 3, 4, 5, 6, 77, 0x80000006, 0x80000009, 0x80000077};
      switch (below(random, 3)) {
        case 0:
          put(file, entry, kinds[below(random, 11)]);
          break;
        default: {
          const size_t field = entry + 8 + 8 * below(random, 2);
          const uint64_t old = get<uint64_t>(file, field);
          const uint64_t values[] = {old + 64, old - 64, old + 1, old * 2, 0, file.size(), ~uint64_t{63}};
          put(file, field, values[below(random, 7)]);
          break;
        }
      }
      break;
    }
  }
}

void refresh(Bytes& file) {
  if (file.size() < 64) return;
  put<uint64_t>(file, 16, file.size());
  put<uint64_t>(file, 24, edgeq::xxh64(file.data() + 64, file.size() - 64));
}

/// Loads and, where the model is small enough, runs it. Returns what happened, in a word.
const char* try_model(const Bytes& file, const char* isa, std::string& message) {
  edgeq::SessionOptions options;
  options.max_isa = isa;
  options.max_memory_bytes = kSessionMemory;
  auto loaded = edgeq::Session::load(file.data(), file.size(), options);
  if (!loaded.ok()) {
    message = loaded.status().message();
    if (message.empty()) {
      std::fprintf(stderr, "an error without a message\n");
      std::abort();
    }
    return "refused";
  }
  edgeq::Session& session = *loaded.value();
  if (session.work() > kMostWork) return "large";
  std::vector<std::vector<float>> in, out;
  std::vector<edgeq::InputArray> inputs;
  std::vector<edgeq::OutputArray> outputs;
  uint64_t total = 0;
  for (const auto* ends : {&session.inputs(), &session.outputs()}) {
    for (const edgeq::EndInfo& end : *ends) {
      uint64_t count = 1;
      for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= static_cast<uint64_t>(end.shape[axis]);
      total += count;
    }
  }
  if (total > kMostWork) return "large";
  for (const edgeq::EndInfo& end : session.inputs()) {
    size_t count = 1;
    for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= static_cast<size_t>(end.shape[axis]);
    in.emplace_back(count);
    for (size_t i = 0; i < count; ++i)
      in.back()[i] = static_cast<float>(static_cast<int>(i * 37 % 256) - 128) * 0.05f;
    inputs.push_back({in.back().data(), true});
  }
  for (const edgeq::EndInfo& end : session.outputs()) {
    size_t count = 1;
    for (size_t axis = 1; axis < end.shape.size(); ++axis) count *= static_cast<size_t>(end.shape[axis]);
    out.emplace_back(count);
  }
  for (auto& values : out) outputs.push_back({values.data(), true});
  const edgeq::Status status = session.run(inputs, outputs, 1);
  if (!status.ok()) {
    message = status.message();
    return "stopped";
  }
  return "ran";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s COUNT [SEED] FILE...\n", argv[0]);
    return 2;
  }
  const uint64_t count = std::strtoull(argv[1], nullptr, 10);
  int first = 2;
  uint64_t seed = 1;
  char* end = nullptr;
  const uint64_t given = std::strtoull(argv[2], &end, 10);
  if (*end == '\0') {
    seed = given;
    first = 3;
  }
  std::vector<Bytes> files;
  for (int i = first; i < argc; ++i) {
    std::ifstream stream(argv[i], std::ios::binary);
    Bytes file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    std::string message;
    for (const char* isa : kIsas) {
      if (std::strcmp(try_model(file, isa, message), "refused") == 0) {
        std::fprintf(stderr, "%s is not valid: %s\n", argv[i], message.c_str());
        return 1;
      }
    }
    files.push_back(std::move(file));
  }
  if (files.empty()) {
    std::fprintf(stderr, "no files given\n");
    return 2;
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
#endif
  std::map<std::string, int> outcomes;
  double slowest = 0;
  size_t largest = 0;
  for (uint64_t i = 0; i < count; ++i) {
    Random random(seed * 1000003 + i);
    Bytes file = files[below(random, files.size())];
    const uint64_t changes = 1 + (below(random, 3) == 0 ? below(random, 4) : 0);
    for (uint64_t change = 0; change < changes; ++change) mutate(file, random, files);
    if (below(random, 2)) refresh(file);
    const char* isa = kIsas[below(random, std::size(kIsas))];
    g_live = g_peak = 0;
    const auto begin = std::chrono::steady_clock::now();
    std::string message;
    const char* outcome = try_model(file, isa, message);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ++outcomes[outcome];
    slowest = std::max(slowest, seconds);
    largest = std::max(largest, g_peak);
    if (seconds > kSeconds || g_peak > kMemory + file.size()) {
      std::fprintf(stderr, "mutation %llu (seed %llu): %s after %.2f s with %zu bytes: %s\n",
                   static_cast<unsigned long long>(i), static_cast<unsigned long long>(seed), outcome,
                   seconds, g_peak, message.c_str());
      return 1;
    }
  }
  for (const auto& [outcome, times] : outcomes) std::printf("%s %d, ", outcome.c_str(), times);
  std::printf("slowest %.3f s, most memory %.1f MiB\n", slowest, static_cast<double>(largest) / (1 << 20));
  return 0;
}
