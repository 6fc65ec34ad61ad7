#ifndef EDGEQ_RUNTIME_SESSION_H_
#define EDGEQ_RUNTIME_SESSION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cpu_features.h"
#include "base/status.h"
#include "runtime/plan.h"
#include "runtime/thread_pool.h"

namespace edgeq {

struct SessionOptions {
  int threads = 1;                                // 0: as many as the process may use, at most 16; at most 32
  std::string max_isa;                            // "": what EDGEQ_MAX_ISA says, else no cap
  uint64_t max_memory_bytes = uint64_t{4} << 30;  // packed weights, maps and arena together
  bool profile = false;                           // time every step
  std::map<std::string, std::string>
      tuning;             // kernels by LayerInfo::tuning_key; others the cost model chooses
  bool keep_all = false;  // keep every activation (no fusion), for Session::read_activation
  // A part of a step has at least this many elementary operations: below it, a second thread is not worth
  // what its caches would have to fetch. Tests set 0 to split everything.
  int64_t split_cost = 16384;
  // Activations, in bytes for each thread, that images of a batch may take together: more of them run one
  // group after another. 0: chosen for the model.
  int64_t group_bytes = 0;
};

/// The caller's array at one end: contiguous, the batch first, in the source model's layout.
struct InputArray {
  const void* data = nullptr;
  bool is_float = false;  // float32, else int8 codes
};

struct OutputArray {
  void* data = nullptr;
  bool is_float = false;  // a float32 tensor (softmax) must be asked for as float
};

/// What a caller is told about an end.
struct EndInfo {
  std::string name;
  std::vector<int64_t> shape;  // as the caller's array has it; the batch as -1
  bool is_float = false;       // not quantized: float32 only
  float scale = 0;
  int32_t zero_point = 0;
  int bits = 0;
};

struct LayerInfo {
  std::string name;
  std::string op;
  std::string kernel;  // "": free (a view, or written in place)
  std::string isa;
  std::string
      fused_into;  // the layer whose step computes this one, else ""; with a kernel: in strips of rows
  std::vector<int64_t> shape;
  int bits = 0;         // of the output's codes; 0: float32
  int weight_bits = 0;  // 0: no weights
  int64_t bytes_packed = 0;
  int64_t macs = 0;
  int64_t work = 0;
  std::string tuning_key;               // what SessionOptions::tuning may choose the kernel by; "": nothing
  std::vector<const char*> candidates;  // the kernels that it may choose
  int64_t median_ns = 0;                // with profiling: over the last kProfiledRuns runs
};

/// A model, packed for this CPU, with its threads and its memory. It keeps nothing of the file.
///
/// `run` and `read_activation` may be called from any thread; calls of one session wait for each other.
class Session {
 public:
  /// Maps, checks, lowers and packs the file at `path`; the mapping ends before this returns.
  static Result<std::unique_ptr<Session>> load(const std::string& path, const SessionOptions& options);

  /// The same from memory. The bytes are copied if they are not 64-byte aligned, and not kept.
  static Result<std::unique_ptr<Session>> load(const uint8_t* data, size_t size,
                                               const SessionOptions& options);

  const std::vector<EndInfo>& inputs() const { return inputs_; }
  const std::vector<EndInfo>& outputs() const { return outputs_; }
  int threads() const { return pool_.threads(); }
  IsaSet isas() const { return isas_; }

  /// Runs `batch` images. The first run at a batch size plans (and may grow) the arena; later ones allocate
  /// nothing. Errors: kInvalidArgument for codes outside the range of a 4-bit input or a null array,
  /// kOutOfMemory when the arena would exceed max_memory_bytes.
  Status run(const std::vector<InputArray>& inputs, const std::vector<OutputArray>& outputs, int64_t batch);

  /// Runs `batch` uint8 images, [batch][height][width][channels], RGB or gray, of the size that the model
  /// takes. The file's normalisation and the quantization of the input are one table a channel: the same
  /// codes as from float32 images. Errors: as `run`, and what `takes_images` says.
  Status run_images(const uint8_t* images, const std::vector<OutputArray>& outputs, int64_t batch);

  /// Whether `run_images` works with this model; the error says why not, and the cure.
  const Status& takes_images() const { return takes_images_; }
  /// Height, width and channels of these images; 0 each where there are none.
  const std::vector<int64_t>& image_shape() const { return image_shape_; }

  /// What turns a row of scores into a prediction (runtime/prediction.h).
  const Guard& guard() const { return guard_; }
  /// Whether the first output is what a softmax gives: its scores are probabilities, not logits.
  bool gives_probabilities() const { return gives_probabilities_; }
  /// Classes of the scores; the error says why the model gives none, and the cure.
  Result<int64_t> classes() const;

  /// How many runs a profile looks back on.
  static constexpr int64_t kProfiledRuns = 512;

  std::vector<LayerInfo> layers() const;
  /// Starts or stops timing; starting forgets the times so far.
  void set_profile(bool profile);

  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t macs() const { return macs_; }
  /// Elementary operations at batch 1: multiply-accumulates, and elements for the rest.
  int64_t work() const { return work_; }
  int64_t file_bytes() const { return file_bytes_; }
  Result<uint64_t> arena_bytes(int64_t batch) const;

  /// Every activation of the graph, inputs first. With keep_all their content after a run can be read.
  const std::vector<Activation>& activations() const { return plan_.activations; }
  /// Copies the activation of the last run (dense, NHWC): int8 codes, or float32 where it is one. The caller
  /// has room for batch * elements. Errors: kInvalidArgument without keep_all or before a run.
  Status read_activation(size_t index, void* out) const;
  int64_t last_batch() const { return last_batch_; }

 private:
  /// How a step is cut: part p computes row part p / column_parts and column part p % column_parts.
  struct Grid {
    Work work = {};
    int64_t row_parts = 1;
    int64_t column_parts = 1;
  };
  /// What runs for some number of images at once: the inputs, the plan's steps, the outputs.
  struct BatchPlan {
    std::vector<uint64_t> offset;                     // a buffer
    std::vector<std::vector<const uint8_t*>> inputs;  // a step: its input pointers
    std::vector<uint8_t*> output;
    std::vector<Grid> grids;              // of inputs, steps and outputs in turn
    std::vector<ThreadPool::Step> parts;  // the same
    bool bound = false;                   // the pointers belong to the arena as it is now
  };
  struct RunState {
    Session* session;
    const std::vector<InputArray>* inputs;  // null: images
    const uint8_t* images;
    const std::vector<OutputArray>* outputs;
    const BatchPlan* plan;
    int64_t first = 0;        // of the caller's images
    int64_t count = 0;        // of images at once
    int64_t finished_ns = 0;  // when the last step was, while a profile is made
  };

  Session(int threads, IsaSet isas) : pool_(threads), isas_(isas) {}
  Status prepare(const uint8_t* data, size_t size, bool mapped_file, const SessionOptions& options);
  static Result<std::unique_ptr<Session>> load(const uint8_t* data, size_t size, bool mapped_file,
                                               const SessionOptions& options);
  Status prepare_images(const Model& model, MemoryBudget& budget);
  Status run_checked(const std::vector<InputArray>* inputs, const uint8_t* images,
                     const std::vector<OutputArray>& outputs, int64_t batch);
  Status plan_batch(int64_t images, BatchPlan** plan);
  /// How many images of a batch run at once.
  int64_t images_at_once(int64_t batch) const;
  static WorkRange range_of(const Grid& grid, int64_t part);
  double expected_ns(const PlannedStep& planned, const Grid& grid, int64_t images) const;
  Grid split(const PlannedStep& planned, int64_t images) const;
  Grid split_end(const PlanEnd& end, int64_t images) const;
  void run_program(RunState& state);
  void run_part(const RunState& state, size_t index, int part, int thread) const;
  void run_step(const RunState& state, size_t index, const Grid& grid, int part, int thread) const;
  void run_input(const RunState& state, size_t index, const Grid& grid, int part) const;
  void run_images_part(const RunState& state, const Grid& grid, int part) const;
  void run_output(const RunState& state, size_t index, const Grid& grid, int part) const;
  /// The time of a step in the profiled run at hand.
  int64_t* profile_of(size_t step);
  void begin_record();
  void record(RunState& state, size_t index);
  int64_t median_ns(size_t step) const;
  uint8_t* scratch(int thread) const;

  ThreadPool pool_;
  IsaSet isas_;
  Slab slab_;  // of the packed weights: before the steps that hold them
  Plan plan_;
  std::vector<EndInfo> inputs_;
  std::vector<EndInfo> outputs_;
  Guard guard_;
  bool gives_probabilities_ = false;
  Status takes_images_;
  std::vector<int64_t> image_shape_;
  AlignedBuffer image_table_;     // [channels][256] activations
  bool images_reversed_ = false;  // the model takes BGR
  uint64_t arena_limit_ = 0;
  AlignedBuffer arena_;
  mutable AlignedBuffer scratch_;  // one piece a thread
  size_t scratch_stride_ = 0;
  std::map<int64_t, BatchPlan> batches_;
  mutable std::mutex mutex_;
  bool keep_all_ = false;
  bool profile_ = false;
  int64_t split_cost_ = 0;
  int64_t group_images_ = 1;  // of a batch, at once
  int64_t runs_profiled_ = 0;
  std::vector<int64_t> step_ns_;  // [steps][kProfiledRuns], a ring
  int64_t last_batch_ = 0;
  int64_t weight_bytes_ = 0;
  int64_t macs_ = 0;
  int64_t work_ = 0;
  int64_t file_bytes_ = 0;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_SESSION_H_
