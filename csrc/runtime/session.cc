#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "kernels/lut/lut.h"
#include "kernels/quantize/quantize.h"
#include "ops/check.h"
#include "ops/op.h"
#include "runtime/cpu_limits.h"
#include "runtime/model_file.h"

namespace edgeq {

extern const OpDef k_op_softmax;

namespace {

constexpr int kMaxDefaultThreads = 16;
constexpr size_t kMaxBatchPlans = 16;

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Part `index` of `parts` of [0, count), its ends multiples of `grain`.
void part_of(int64_t count, int64_t grain, int64_t index, int64_t parts, int64_t* begin, int64_t* end) {
  const int64_t units = (count + grain - 1) / grain;
  *begin = std::min(count, units * index / parts * grain);
  *end = std::min(count, units * (index + 1) / parts * grain);
}

EndInfo end_info(const Plan& plan, const PlanEnd& end) {
  const Activation& activation = plan.activations[end.activation];
  EndInfo info;
  info.name = activation.name;
  info.shape = activation.shape;
  if (end.nchw) {
    info.shape.insert(info.shape.begin() + 1, info.shape.back());
    info.shape.pop_back();
  }
  info.is_float = activation.is_float;
  info.scale = activation.scale;
  info.zero_point = activation.zero_point;
  info.bits = activation.bits;
  return info;
}

bool ends_in_softmax(const Model& model) {
  for (const Node& node : model.nodes) {
    if (node.output == model.outputs[0].tensor) return node.op == k_op_softmax.code;
  }
  return false;
}

OutputRange codes_of(const Activation& activation) {
  const int32_t lowest = activation.bits == 4 ? -8 : -128;
  return {act_from_code(activation.zero_point), act_from_code(lowest), act_from_code(-lowest - 1)};
}

}  // namespace

Result<std::unique_ptr<Session>> Session::load(const std::string& path, const SessionOptions& options) {
  auto bytes = FileBytes::map(path);
  EDGEQ_RETURN_IF_ERROR(bytes.status());
  return load(bytes.value().data(), bytes.value().size(), true, options);
}

Result<std::unique_ptr<Session>> Session::load(const uint8_t* data, size_t size,
                                               const SessionOptions& options) {
  return load(data, size, false, options);
}

Result<std::unique_ptr<Session>> Session::load(const uint8_t* data, size_t size, bool mapped_file,
                                               const SessionOptions& options) {
  if (options.threads < 0 || options.threads > ThreadPool::kMaxThreads) {
    return Status::invalid_argument(
        format("%d threads are not possible: choose 1 to %d, or 0 for as many as there are CPUs",
               options.threads, ThreadPool::kMaxThreads));
  }
  const char* cap = options.max_isa.empty() ? std::getenv("EDGEQ_MAX_ISA") : options.max_isa.c_str();
  auto isas = usable_isas(cap);
  EDGEQ_RETURN_IF_ERROR(isas.status());
  const int threads = options.threads > 0 ? options.threads : std::min(kMaxDefaultThreads, usable_cpus());
  try {
    FileBytes copy;
    if (reinterpret_cast<uintptr_t>(data) % 64 != 0) {
      auto copied = FileBytes::copy(data, size);
      EDGEQ_RETURN_IF_ERROR(copied.status());
      copy = std::move(copied).value();
      data = copy.data();
    }
    std::unique_ptr<Session> session(new Session(threads, isas.value()));
    EDGEQ_RETURN_IF_ERROR(session->prepare(data, size, mapped_file, options));
    return session;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("no memory to load the model");
  } catch (const std::system_error& error) {
    return Status::out_of_memory(std::string("the threads cannot be started: ") + error.what());
  }
}

Status Session::prepare(const uint8_t* data, size_t size, bool mapped_file, const SessionOptions& options) {
  auto model = read_model(data, size);
  EDGEQ_RETURN_IF_ERROR(model.status());
  // Packed weights are a little larger than the file's; what does not fit gets memory of its own.
  uint64_t weights = 0;
  for (const Tensor& tensor : model.value().tensors) {
    if (tensor.constant && tensor.rank > 1) weights += tensor.bytes;
  }
  const uint64_t most = std::min<uint64_t>(2 * uint64_t{size} + (1 << 20), options.max_memory_bytes);
  slab_.reserve(static_cast<size_t>(most), static_cast<size_t>(weights));
  MemoryBudget budget(options.max_memory_bytes, &slab_);
  Target target;
  target.isas = isas_;
  target.budget = &budget;
  target.mapped_file = mapped_file;
  if (!options.tuning.empty()) target.tuning = &options.tuning;
  keep_all_ = options.keep_all;
  split_cost_ = options.split_cost;
  auto plan = make_plan(model.value(), keep_all_, target);
  EDGEQ_RETURN_IF_ERROR(plan.status());
  plan_ = std::move(plan).value();
  slab_.finish();
  for (const PlanEnd& end : plan_.inputs) inputs_.push_back(end_info(plan_, end));
  for (const PlanEnd& end : plan_.outputs) outputs_.push_back(end_info(plan_, end));
  guard_ = model.value().guard;
  gives_probabilities_ = ends_in_softmax(model.value());
  EDGEQ_RETURN_IF_ERROR(prepare_images(model.value(), budget));
  for (const PlannedStep& planned : plan_.steps) {
    weight_bytes_ += planned.step->info.bytes_packed;
    macs_ += planned.step->info.macs;
    work_ += planned.step->info.work;
  }
  file_bytes_ = static_cast<int64_t>(size);
  scratch_stride_ = align64(plan_.scratch_bytes + kReadSlack);
  EDGEQ_RETURN_IF_ERROR(allocate(scratch_, scratch_stride_ * static_cast<size_t>(pool_.threads()),
                                 "the scratch memory", budget));
  arena_limit_ = budget.left();
  if (options.profile) set_profile(true);
  // A model that cannot run even one image is refused here, not at its first run.
  const auto arena = arena_bytes(1);
  EDGEQ_RETURN_IF_ERROR(arena.status());
  // Images run together as long as their activations stay in a thread's second-level cache: what a step
  // writes is then still there for the next one. Where the weights outgrow the caches, reading them once for
  // several images is worth more.
  constexpr int64_t kCacheBytes = 768 * 1024;
  constexpr int64_t kLargeWeights = 8 << 20;
  int64_t bytes = options.group_bytes;
  if (bytes <= 0) bytes = weight_bytes_ > kLargeWeights ? weight_bytes_ : kCacheBytes;
  const int64_t an_image = std::max<int64_t>(1, static_cast<int64_t>(arena.value()));
  const int64_t room = static_cast<int64_t>(std::min<uint64_t>(arena_limit_, INT64_MAX)) / an_image;
  group_images_ =
      std::max<int64_t>(1, std::min(room, std::max<int64_t>(1, bytes / an_image) * pool_.threads()));
  return Status();
}

Status Session::prepare_images(const Model& model, MemoryBudget& budget) {
  const Preprocessing& record = model.preprocessing;
  const auto refuse = [this](const std::string& why) {
    takes_images_ = Status::invalid_argument("the model takes no uint8 images: " + why);
    return Status();
  };
  if (inputs_.size() != 1) return refuse("it has several inputs; give float32 arrays");
  const Tensor& x = model.tensors[model.inputs[0].tensor];
  const int64_t channels = record.channels == Preprocessing::Channels::kGray ? 1 : 3;
  if (!record.present) {
    return refuse(
        "the file does not say how they are normalised; export it again with --mean and --std, or give "
        "float32 arrays");
  }
  if (x.rank != 4 || x.dims[3] != channels) {
    return refuse(
        format("its input %s is no image of %d channels, which the file's normalisation is for; give float32 "
               "arrays",
               shape_text(x).c_str(), static_cast<int>(channels)));
  }
  image_shape_ = {x.dims[1], x.dims[2], channels};
  images_reversed_ = record.channels == Preprocessing::Channels::kBgr;
  EDGEQ_RETURN_IF_ERROR(allocate(image_table_, 256 * static_cast<uint64_t>(channels), "a table", budget));
  const OutputRange range = output_range(x);
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const float mean = record.mean[record.mean.size() == 1 ? 0 : c];
    const float std = record.std[record.std.size() == 1 ? 0 : c];
    for (size_t pixel = 0; pixel < 256; ++pixel) {
      const float value = (static_cast<float>(pixel) - mean) / std;
      image_table_.data()[256 * c + pixel] = static_cast<uint8_t>(quantize_value(value, x.scale(), range));
    }
  }
  return Status();
}

Result<int64_t> Session::classes() const {
  if (outputs_.size() == 1 && outputs_[0].shape.size() == 2 && outputs_[0].shape[1] >= 2) {
    return outputs_[0].shape[1];
  }
  return Status::invalid_argument(
      "the model is no classifier: predictions need one output [N, classes] of at least two classes; run it "
      "instead");
}

Result<uint64_t> Session::arena_bytes(int64_t batch) const {
  if (batch < 1) return Status::invalid_argument("a batch must hold at least one image");
  auto layout = layout_arena(plan_.buffers, images_at_once(batch), arena_limit_);
  EDGEQ_RETURN_IF_ERROR(layout.status());
  return layout.value().bytes;
}

int64_t Session::images_at_once(int64_t batch) const {
  if (keep_all_) return batch;
  // Groups of one size, or one less.
  const int64_t groups = (batch + group_images_ - 1) / group_images_;
  return (batch + groups - 1) / groups;
}

Status Session::plan_batch(int64_t images, BatchPlan** plan) {
  BatchPlan& found = batches_[images];
  *plan = &found;
  if (found.bound) return Status();
  auto layout = layout_arena(plan_.buffers, images, arena_limit_);
  EDGEQ_RETURN_IF_ERROR(layout.status());
  if (layout.value().bytes > arena_.size()) {
    for (auto& other : batches_) other.second.bound = false;
    if (!arena_.allocate(layout.value().bytes)) {
      return Status::out_of_memory(format("no memory for the activations (%llu bytes)",
                                          static_cast<unsigned long long>(layout.value().bytes)));
    }
  }
  found = BatchPlan();
  found.offset = layout.value().offset;
  const auto address = [&](const ValueRef& value) {
    return value.buffer < 0 ? nullptr : arena_.data() + found.offset[value.buffer] + value.offset;
  };
  // From here on, sleeping threads are worth waking: about 10 microseconds of work for each.
  constexpr int64_t kWakeCost = 500000;
  const auto add = [&found](const Grid& grid, bool wake) {
    found.grids.push_back(grid);
    found.parts.push_back({static_cast<uint8_t>(grid.row_parts * grid.column_parts), wake});
  };
  for (const PlanEnd& end : plan_.inputs) add(split_end(end, images), true);
  for (const PlannedStep& planned : plan_.steps) {
    std::vector<const uint8_t*> inputs;
    for (const ValueRef& input : planned.inputs) inputs.push_back(address(input));
    found.inputs.push_back(std::move(inputs));
    found.output.push_back(address(planned.output));
    const Grid grid = split(planned, images);
    add(grid, grid.work.cost >= kWakeCost);
  }
  for (const PlanEnd& end : plan_.outputs) add(split_end(end, images), true);
  found.bound = true;
  return Status();
}

Status Session::run(const std::vector<InputArray>& inputs, const std::vector<OutputArray>& outputs,
                    int64_t batch) {
  if (batch < 1) return Status::invalid_argument("a batch must hold at least one image");
  if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) {
    return Status::invalid_argument(format("the model has %d inputs and %d outputs",
                                           static_cast<int>(inputs_.size()),
                                           static_cast<int>(outputs_.size())));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].data == nullptr) return Status::invalid_argument("input " + inputs_[i].name + " is null");
    if (inputs[i].is_float || inputs_[i].bits != 4) continue;
    const Activation& activation = plan_.activations[plan_.inputs[i].activation];
    const int8_t* codes = static_cast<const int8_t*>(inputs[i].data);
    const int64_t count = batch * activation.pixels * activation.channels;
    if (std::any_of(codes, codes + count, [](int8_t code) { return code < -8 || code > 7; })) {
      return Status::invalid_argument("input " + inputs_[i].name + " takes 4-bit codes, -8 to 7");
    }
  }
  return run_checked(&inputs, nullptr, outputs, batch);
}

Status Session::run_images(const uint8_t* images, const std::vector<OutputArray>& outputs, int64_t batch) {
  if (!takes_images_.ok()) return takes_images_;
  if (batch < 1) return Status::invalid_argument("a batch must hold at least one image");
  if (images == nullptr) return Status::invalid_argument("the images are null");
  if (outputs.size() != outputs_.size()) {
    return Status::invalid_argument(format("the model has %d outputs", static_cast<int>(outputs_.size())));
  }
  return run_checked(nullptr, images, outputs, batch);
}

Status Session::run_checked(const std::vector<InputArray>* inputs, const uint8_t* images,
                            const std::vector<OutputArray>& outputs, int64_t batch) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].data == nullptr)
      return Status::invalid_argument("output " + outputs_[i].name + " is null");
    if (outputs_[i].is_float && !outputs[i].is_float) {
      return Status::invalid_argument("output " + outputs_[i].name + " is float32; it has no codes");
    }
  }
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t size = images_at_once(batch);
  BatchPlan* plan = nullptr;
  BatchPlan* rest = nullptr;
  try {
    if (batches_.size() + 2 > kMaxBatchPlans) batches_.clear();
    EDGEQ_RETURN_IF_ERROR(plan_batch(size, &plan));
    if (batch % size != 0) EDGEQ_RETURN_IF_ERROR(plan_batch(batch % size, &rest));
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory("no memory to plan the batch");
  }
  RunState state = {this, inputs, images, &outputs, plan, 0, size, 0};
  if (profile_) begin_record();
  for (; state.first + size <= batch; state.first += size) run_program(state);
  if (rest != nullptr) {
    state.plan = rest;
    state.count = batch % size;
    run_program(state);
  }
  last_batch_ = batch;
  if (profile_) ++runs_profiled_;
  return Status();
}

void Session::run_program(RunState& state) {
  ThreadPool::Program program;
  program.steps = state.plan->parts.data();
  program.step_count = static_cast<int>(state.plan->parts.size());
  program.context = &state;
  program.compute = [](void* context, int step, int part, int thread) {
    const RunState& run = *static_cast<const RunState*>(context);
    run.session->run_part(run, static_cast<size_t>(step), part, thread);
  };
  if (profile_) {
    program.finished = [](void* context, int step) {
      RunState& run = *static_cast<RunState*>(context);
      run.session->record(run, static_cast<size_t>(step));
    };
    state.finished_ns = now_ns();
  }
  pool_.run(program);
}

void Session::run_part(const RunState& state, size_t index, int part, int thread) const {
  const Grid& grid = state.plan->grids[index];
  if (index < inputs_.size()) {
    if (state.images != nullptr) {
      run_images_part(state, grid, part);
    } else {
      run_input(state, index, grid, part);
    }
  } else if (index < inputs_.size() + plan_.steps.size()) {
    run_step(state, index - inputs_.size(), grid, part, thread);
  } else {
    run_output(state, index - inputs_.size() - plan_.steps.size(), grid, part);
  }
}

WorkRange Session::range_of(const Grid& grid, int64_t part) {
  const Work& work = grid.work;
  WorkRange range;
  part_of(work.rows, work.row_grain, part / grid.column_parts, grid.row_parts, &range.row_begin,
          &range.row_end);
  part_of(work.columns, 1, part % grid.column_parts, grid.column_parts, &range.column_begin,
          &range.column_end);
  return range;
}

/// How long a grid takes, in nanoseconds of a rough CPU: what its busiest thread computes, and what crosses
/// between the cores' caches.
double Session::expected_ns(const PlannedStep& planned, const Grid& grid, int64_t images) const {
  // Orders of magnitude of one core of a desktop. They decide between cutting rows and cutting columns:
  // weights come from a shared cache to whoever reads them first, one after another; an activation that
  // another core has just written comes from that core's own cache, which takes several times as long.
  constexpr double kMacsPerNs = 150;
  constexpr double kOperationsPerNs = 30;
  constexpr double kWeightBytesPerNs = 60;
  constexpr double kCrossingBytesPerNs = 12;
  constexpr double kMeetingNs = 200;
  const Work& work = grid.work;
  const StepInfo& info = planned.step->info;
  const double whole = static_cast<double>(work.cost) / (info.macs > 0 ? kMacsPerNs : kOperationsPerNs);
  const int64_t threads = pool_.threads();
  const int64_t parts = grid.row_parts * grid.column_parts;
  if (parts == 1) return whole + static_cast<double>(info.bytes_packed) / kWeightBytesPerNs;
  int64_t largest = 0;
  int64_t part = 0;
  for (int64_t thread = 0; thread < threads; ++thread) {
    int64_t share = 0;
    // The owner of a part, as the thread pool has it.
    for (; part < parts && part * threads / parts == thread; ++part) {
      const WorkRange range = range_of(grid, part);
      share += (range.row_end - range.row_begin) * (range.column_end - range.column_begin);
    }
    largest = std::max(largest, share);
  }
  const auto bytes_of = [&](const ValueRef& value) {
    const int64_t bytes =
        value.buffer < 0 ? 0 : plan_.buffers[static_cast<size_t>(value.buffer)].bytes_per_image;
    return static_cast<double>(bytes * images);
  };
  double in = 0;
  for (const ValueRef& input : planned.inputs) in += bytes_of(input);
  // Steps are cut by rows where nothing speaks against it: cut by columns, a thread finds its own columns of
  // the input in its caches, and of the output its own columns of the rows that it reads next.
  const double others = 1 - 1 / static_cast<double>(grid.column_parts);
  const double crossing = others * (in / static_cast<double>(grid.row_parts) +
                                    bytes_of(planned.output) / static_cast<double>(threads));
  return whole * static_cast<double>(largest) / static_cast<double>(work.rows * work.columns) + kMeetingNs +
         static_cast<double>(info.bytes_packed) / static_cast<double>(grid.column_parts) / kWeightBytesPerNs +
         crossing / kCrossingBytesPerNs;
}

/// Chooses the grid of parts for a step. Columns are cut where weights outweigh everything (few rows); small
/// steps stay whole.
Session::Grid Session::split(const PlannedStep& planned, int64_t images) const {
  Grid best;
  best.work = planned.step->work(images);
  const Work& work = best.work;
  const int64_t threads = pool_.threads();
  if (threads == 1 || work.cost == 0) return best;
#if defined(__SANITIZE_THREAD__)
  // A kernel may read (and drop) bytes behind the end of a pixel. Where input and output are channel slices
  // of one buffer, those are bytes that another thread writes: harmless, but a race to the sanitizer.
  if (planned.shares_buffer) return best;
#endif
  // Twice as many parts as threads where they are large: when the system puts a thread aside, the others take
  // what it has not begun.
  constexpr int64_t kLarge = 2000000;
  int64_t most = work.cost >= 2 * threads * kLarge && !work.overlaps ? 2 * threads : threads;
  most = std::min<int64_t>(most, ThreadPool::kMaxParts);
  if (split_cost_ > 0) most = std::min(most, work.cost / split_cost_);
  const int64_t units = (work.rows + work.row_grain - 1) / work.row_grain;
  double least = split_cost_ > 0 ? expected_ns(planned, best, images) : 1e30;
  for (int64_t rows = 1; rows <= std::min(most, units); ++rows) {
    for (int64_t columns = rows == 1 ? 2 : 1; columns <= std::min(most / rows, work.columns); ++columns) {
      Grid grid;
      grid.work = work;
      grid.row_parts = rows;
      grid.column_parts = columns;
      double ns = expected_ns(planned, grid, images);
      // Tests cut everything, into as many parts as there can be.
      if (split_cost_ == 0) ns /= static_cast<double>(rows * columns);
      if (ns >= least) continue;
      least = ns;
      best = grid;
    }
  }
  return best;
}

Session::Grid Session::split_end(const PlanEnd& end, int64_t images) const {
  Grid grid;
  if (pool_.threads() > 1) {
    const Activation& activation = plan_.activations[static_cast<size_t>(end.activation)];
    const int64_t elements = images * activation.pixels * activation.channels;
    const int64_t parts = std::min<int64_t>(pool_.threads(), activation.pixels);
    grid.row_parts = split_cost_ > 0 ? std::max<int64_t>(1, std::min(parts, elements / split_cost_)) : parts;
  }
  return grid;
}

void Session::run_step(const RunState& state, size_t index, const Grid& grid, int part, int thread) const {
  const WorkRange range = range_of(grid, part);
  if (range.row_begin >= range.row_end || range.column_begin >= range.column_end) return;
  const StepIo io = {state.plan->inputs[index].data(), state.plan->output[index], state.count};
  plan_.steps[index].step->run(io, range, scratch(thread));
}

uint8_t* Session::scratch(int thread) const {
  return scratch_.data() + scratch_stride_ * static_cast<size_t>(thread);
}

int64_t* Session::profile_of(size_t step) {
  return step_ns_.data() + step * kProfiledRuns + static_cast<size_t>(runs_profiled_ % kProfiledRuns);
}

void Session::begin_record() {
  for (size_t step = 0; step < plan_.steps.size(); ++step) *profile_of(step) = 0;
}

void Session::record(RunState& state, size_t index) {
  const int64_t now = now_ns();
  if (index >= inputs_.size() && index < inputs_.size() + plan_.steps.size()) {
    *profile_of(index - inputs_.size()) += now - state.finished_ns;
  }
  state.finished_ns = now;
}

void Session::run_input(const RunState& state, size_t index, const Grid& grid, int part) const {
  const PlanEnd& end = plan_.inputs[index];
  const Activation& to = plan_.activations[end.activation];
  const InputArray& from = (*state.inputs)[index];
  uint8_t* base = const_cast<uint8_t*>(arena_.data()) + state.plan->offset[to.at.buffer] + to.at.offset;
  const int64_t image = to.pixels * to.channels;
  for (int64_t n = 0; n < state.count; ++n) {
    int64_t begin, end_pixel;
    part_of(to.pixels, 1, part, grid.row_parts, &begin, &end_pixel);
    if (begin == end_pixel) continue;
    const int64_t pixel_stride = end.nchw ? 1 : to.channels;
    const int64_t channel_stride = end.nchw ? to.pixels : 1;
    const int64_t offset = (state.first + n) * image + begin * pixel_stride;
    uint8_t* dst = base + (n * to.pixels + begin) * to.at.stride;
    if (from.is_float) {
      QuantizeParams params;
      params.pixels = static_cast<size_t>(end_pixel - begin);
      params.channels = static_cast<size_t>(to.channels);
      params.src = static_cast<const float*>(from.data) + offset;
      params.src_pixel_stride = pixel_stride;
      params.src_channel_stride = channel_stride;
      params.dst = reinterpret_cast<act_t*>(dst);
      params.dst_pixel_stride = to.at.stride;
      params.dst_channel_stride = 1;
      params.scale = to.scale;
      params.range = codes_of(to);
      select_quantize(isas_)->run(params);
    } else {
      RecodeParams params;
      params.pixels = static_cast<size_t>(end_pixel - begin);
      params.channels = static_cast<size_t>(to.channels);
      params.src = static_cast<const uint8_t*>(from.data) + offset;
      params.src_pixel_stride = pixel_stride;
      params.src_channel_stride = channel_stride;
      params.dst = dst;
      params.dst_pixel_stride = to.at.stride;
      params.dst_channel_stride = 1;
      params.xor_mask = kActXor;
      select_recode(isas_)->run(params);
    }
  }
}

void Session::run_images_part(const RunState& state, const Grid& grid, int part) const {
  const Activation& to = plan_.activations[plan_.inputs[0].activation];
  uint8_t* base = const_cast<uint8_t*>(arena_.data()) + state.plan->offset[to.at.buffer] + to.at.offset;
  // The images follow each other on both sides.
  int64_t begin, end;
  part_of(state.count * to.pixels, 1, part, grid.row_parts, &begin, &end);
  LutParams params;
  params.channels = static_cast<size_t>(to.channels);
  params.src_row_stride = to.channels;
  params.dst_row_stride = to.at.stride;
  params.table = image_table_.data();
  params.per_channel = to.channels > 1;
  params.reversed = images_reversed_;
  const auto run = [&](const uint8_t* from, int64_t first, int64_t last) {
    if (first >= last) return;
    params.rows = static_cast<size_t>(last - first);
    params.src = from;
    params.dst = base + first * to.at.stride;
    select_lut(isas_)->run(params);
  };
  // Kernels read up to kReadSlack bytes past their source, which the caller's array need not have: its last
  // pixels go through memory that has them.
  constexpr int64_t kLastPixels = kReadSlack;
  constexpr int64_t kMostChannels = 3;
  const uint8_t* images = state.images + state.first * to.pixels * to.channels;
  const int64_t whole = std::max(begin, std::min(end, state.count * to.pixels - kLastPixels));
  run(images + begin * to.channels, begin, whole);
  uint8_t last[kLastPixels * kMostChannels + kReadSlack] = {};
  std::memcpy(last, images + whole * to.channels, static_cast<size_t>((end - whole) * to.channels));
  run(last, whole, end);
}

void Session::run_output(const RunState& state, size_t index, const Grid& grid, int part) const {
  const PlanEnd& end = plan_.outputs[index];
  const Activation& from = plan_.activations[end.activation];
  const OutputArray& to = (*state.outputs)[index];
  const uint8_t* base = arena_.data() + state.plan->offset[from.at.buffer] + from.at.offset;
  const int64_t image = from.pixels * from.channels;
  for (int64_t n = 0; n < state.count; ++n) {
    int64_t begin, end_pixel;
    part_of(from.pixels, 1, part, grid.row_parts, &begin, &end_pixel);
    if (begin == end_pixel) continue;
    const int64_t pixel_stride = end.nchw ? 1 : from.channels;
    const int64_t channel_stride = end.nchw ? from.pixels : 1;
    const int64_t offset = (state.first + n) * image + begin * pixel_stride;
    const uint8_t* src = base + (n * from.pixels + begin) * from.at.stride;
    if (from.is_float) {
      float* dst = static_cast<float*>(to.data) + offset;
      for (int64_t pixel = 0; pixel < end_pixel - begin; ++pixel) {
        const float* values = reinterpret_cast<const float*>(src + pixel * from.at.stride);
        for (int64_t c = 0; c < from.channels; ++c)
          dst[pixel * pixel_stride + c * channel_stride] = values[c];
      }
    } else if (to.is_float) {
      DequantizeParams params;
      params.pixels = static_cast<size_t>(end_pixel - begin);
      params.channels = static_cast<size_t>(from.channels);
      params.src = reinterpret_cast<const act_t*>(src);
      params.src_pixel_stride = from.at.stride;
      params.src_channel_stride = 1;
      params.dst = static_cast<float*>(to.data) + offset;
      params.dst_pixel_stride = pixel_stride;
      params.dst_channel_stride = channel_stride;
      params.scale = from.scale;
      params.zp = act_from_code(from.zero_point);
      select_dequantize(isas_)->run(params);
    } else {
      RecodeParams params;
      params.pixels = static_cast<size_t>(end_pixel - begin);
      params.channels = static_cast<size_t>(from.channels);
      params.src = src;
      params.src_pixel_stride = from.at.stride;
      params.src_channel_stride = 1;
      params.dst = static_cast<uint8_t*>(to.data) + offset;
      params.dst_pixel_stride = pixel_stride;
      params.dst_channel_stride = channel_stride;
      params.xor_mask = kActXor;
      select_recode(isas_)->run(params);
    }
  }
}

std::vector<LayerInfo> Session::layers() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<const Layer*> owners(plan_.steps.size(), nullptr);
  for (const Layer& layer : plan_.layers) {
    if (layer.primary) owners[static_cast<size_t>(layer.step)] = &layer;
  }
  std::vector<LayerInfo> layers;
  for (const Layer& layer : plan_.layers) {
    LayerInfo info;
    info.name = layer.name;
    info.op = layer.op;
    info.shape = layer.shape;
    info.bits = layer.bits;
    if (layer.primary || layer.part >= 0) {
      const Step& step = *plan_.steps[static_cast<size_t>(layer.step)].step;
      const StepInfo& told = layer.part >= 0 ? step.parts[static_cast<size_t>(layer.part)] : step.info;
      info.kernel = told.kernel;
      info.isa = isa_name(told.isa);
      info.weight_bits = told.weight_bits;
      info.bytes_packed = told.bytes_packed;
      info.macs = told.macs;
      info.work = told.work;
      info.tuning_key = told.shape;
      info.candidates = told.candidates;
    }
    if (layer.primary) info.median_ns = median_ns(static_cast<size_t>(layer.step));
    if (layer.step >= 0 && !layer.primary) {
      info.fused_into = owners[static_cast<size_t>(layer.step)]->name;
    }
    layers.push_back(std::move(info));
  }
  return layers;
}

int64_t Session::median_ns(size_t step) const {
  const int64_t count = std::min(runs_profiled_, kProfiledRuns);
  if (count == 0) return 0;
  const auto first = step_ns_.begin() + static_cast<int64_t>(step) * kProfiledRuns;
  std::vector<int64_t> times(first, first + count);
  std::nth_element(times.begin(), times.begin() + count / 2, times.end());
  return times[static_cast<size_t>(count / 2)];
}

void Session::set_profile(bool profile) {
  std::lock_guard<std::mutex> lock(mutex_);
  profile_ = profile;
  if (profile) {
    runs_profiled_ = 0;
    step_ns_.assign(plan_.steps.size() * kProfiledRuns, 0);
  }
}

Status Session::read_activation(size_t index, void* out) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!keep_all_) return Status::invalid_argument("the session was not loaded to keep its activations");
  if (last_batch_ == 0) return Status::invalid_argument("the session has not run yet");
  if (index >= plan_.activations.size()) return Status::invalid_argument("there is no such activation");
  const Activation& from = plan_.activations[index];
  const auto plan = batches_.find(last_batch_);
  const uint8_t* base = arena_.data() + plan->second.offset[from.at.buffer] + from.at.offset;
  const size_t row = static_cast<size_t>(from.channels) * (from.is_float ? 4 : 1);
  uint8_t* to = static_cast<uint8_t*>(out);
  for (int64_t pixel = 0; pixel < last_batch_ * from.pixels; ++pixel, to += row) {
    std::memcpy(to, base + pixel * from.at.stride, row);
    if (from.is_float) continue;
    for (size_t c = 0; c < row; ++c) to[c] ^= kActXor;
  }
  return Status();
}

}  // namespace edgeq
