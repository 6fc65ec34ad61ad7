#include "runtime/plan.h"

#include <algorithm>

#include "ops/channel_shuffle.h"
#include "ops/check.h"
#include "ops/pad.h"
#include "ops/strip_step.h"

namespace edgeq {
namespace {

// Codes of the operators that the plan treats specially (ops.inc).
enum OpCode : uint16_t {
  kAdd = 4,
  kSub = 5,
  kMul = 6,
  kLut = 7,
  kConcat = 11,
  kSlice = 12,
  kReshape = 13,
  kTranspose = 14,
  kPad = 15,
  kChannelShuffle = 18
};

/// Where a tensor lies relative to another one.
struct Link {
  int parent = -1;     // tensor; -1: it has a buffer of its own
  int64_t offset = 0;  // channels into the parent's pixels
  bool flat = false;   // same bytes, other pixels: the parent is dense
};

class Planner {
 public:
  Planner(const Model& model, bool keep_all, Target& target)
      : model_(model), keep_all_(keep_all), target_(target) {}

  Result<Plan> run() {
    count_uses();
    if (!keep_all_) fuse();
    order_steps();
    link_reshapes();
    link_concats();
    link_slices();
    EDGEQ_RETURN_IF_ERROR(prepare());
    if (!keep_all_) {
      EDGEQ_RETURN_IF_ERROR(join_strips());
      write_in_place();
    }
    assign_buffers();
    place_steps();
    describe();
    return std::move(plan_);
  }

 private:
  /// How a node takes part: as a step of its own, as part of another's, or not at all.
  struct Role {
    int owner = -1;  // the node whose step computes it; itself when it has one
    int table = -1;  // nodes fused behind it
    int residual = -1;
    int residual_operand = -1;
    int pad = -1;     // nodes fused before it
    int concat = -1;  // (a shuffle's)
    int last = -1;    // the node whose output the step writes
    bool absorbed = false;
  };

  NodeView view(int node) const { return NodeView{model_, model_.nodes[node]}; }
  const Tensor& tensor(int index) const { return model_.tensors[index]; }
  int node_count() const { return static_cast<int>(model_.nodes.size()); }

  void count_uses() {
    uses_.assign(model_.tensors.size(), 0);
    only_user_.assign(model_.tensors.size(), -1);
    producer_.assign(model_.tensors.size(), -1);
    is_output_.assign(model_.tensors.size(), false);
    for (int n = 0; n < node_count(); ++n) {
      for (int32_t input : model_.nodes[n].inputs) {
        if (input < 0) continue;
        ++uses_[input];
        only_user_[input] = n;
      }
      producer_[model_.nodes[n].output] = n;
    }
    for (const End& end : model_.outputs) is_output_[end.tensor] = true;
    roles_.resize(model_.nodes.size());
    for (int n = 0; n < node_count(); ++n) roles_[n].owner = roles_[n].last = n;
  }

  /// The only node that reads the tensor, or -1.
  int single_user(int index) const {
    return uses_[index] == 1 && !is_output_[index] ? only_user_[index] : -1;
  }

  void fuse() {
    fuse_pads();
    fuse_concats();
    // Backwards, so that of two products that are added the later one takes the addition: it runs at the
    // addition's place anyway, and nothing has to wait for it.
    for (int n = node_count() - 1; n >= 0; --n) {
      // An addition that a product takes cannot keep a table behind it.
      if (is_binary(n)) continue;
      Role& role = roles_[n];
      const Fusions fusions = find_op(model_.nodes[n].op)->fusions(view(n));
      if (fusions.table) fuse_table(n);
      if (fusions.residual) {
        const int output = model_.nodes[role.last].output;
        const int user = single_user(output);
        if (user >= 0 && model_.nodes[user].op == kAdd && !roles_[user].absorbed && can_add(user)) {
          role.residual = user;
          role.residual_operand = model_.nodes[user].inputs[0] == output ? 1 : 0;
          absorb(user, n);
        }
      }
    }
    for (int n = 0; n < node_count(); ++n) {
      const bool takes_table = find_op(model_.nodes[n].op)->fusions(view(n)).table;
      if (is_binary(n) && takes_table && !roles_[n].absorbed) fuse_table(n);
    }
  }

  bool is_binary(int n) const {
    const uint16_t op = model_.nodes[n].op;
    return op == kAdd || op == kSub || op == kMul;
  }

  /// Takes the table that alone reads the node's output into its step.
  void fuse_table(int n) {
    const int user = single_user(model_.nodes[roles_[n].last].output);
    if (user >= 0 && model_.nodes[user].op == kLut && view(user).input(1).rank == 1) {
      roles_[n].table = user;
      absorb(user, n);
    }
  }

  void absorb(int node, int owner) {
    roles_[node].absorbed = true;
    roles_[node].owner = owner;
    roles_[owner].last = node;
  }

  /// Whether both operands of an add are activations of the output's shape.
  bool can_add(int node) const {
    const NodeView add = view(node);
    for (int i = 0; i < 2; ++i) {
      const Tensor& operand = add.input(i);
      if (operand.constant || operand.rank != add.output().rank ||
          !std::equal(operand.dims, operand.dims + operand.rank, add.output().dims)) {
        return false;
      }
    }
    return true;
  }

  void fuse_pads() {
    std::vector<std::vector<int>> users(model_.tensors.size());
    for (int n = 0; n < node_count(); ++n) {
      for (int32_t input : model_.nodes[n].inputs) {
        if (input >= 0 && producer_[input] >= 0 && model_.nodes[producer_[input]].op == kPad) {
          users[input].push_back(n);
        }
      }
    }
    for (int n = 0; n < node_count(); ++n) {
      int32_t pads[4];
      const int output = model_.nodes[n].output;
      if (model_.nodes[n].op != kPad || is_output_[output] || !spatial_pads(view(n), pads)) continue;
      // A large border would make the convolution's map of pixels as large: it stays on its own.
      bool folds = !users[output].empty();
      for (int32_t pad : pads) folds &= pad <= 64;
      for (int user : users[output]) {
        const Node& node = model_.nodes[user];
        folds &= find_op(node.op)->fusions(view(user)).pad && node.inputs[0] == output &&
                 uses_of(user, output) == 1;
      }
      if (!folds) continue;
      for (int user : users[output]) roles_[user].pad = n;
      roles_[n].absorbed = true;
      roles_[n].owner = users[output].front();
    }
  }

  /// Leaves out concatenations that only a shuffle reads: it gathers its groups from their inputs.
  void fuse_concats() {
    for (int n = 0; n < node_count(); ++n) {
      if (model_.nodes[n].op != kChannelShuffle) continue;
      const int x = model_.nodes[n].inputs[0];
      const int concat = producer_[x];
      if (concat < 0 || model_.nodes[concat].op != kConcat || single_user(x) != n) continue;
      if (!absorbs_concat(view(n), view(concat))) continue;
      roles_[n].concat = concat;
      roles_[concat].absorbed = true;
      roles_[concat].owner = n;
    }
  }

  int uses_of(int node, int index) const {
    const auto& inputs = model_.nodes[node].inputs;
    return static_cast<int>(std::count(inputs.begin(), inputs.end(), index));
  }

  void order_steps() {
    for (int n = 0; n < node_count(); ++n) {
      if (!roles_[n].absorbed) order_.push_back(n);
    }
    // A fused step runs where its last node stood: everything that it reads is there by then.
    std::sort(order_.begin(), order_.end(), [this](int a, int b) { return roles_[a].last < roles_[b].last; });
    links_.resize(model_.tensors.size());
    pinned_.assign(model_.tensors.size(), false);
    copy_inputs_.resize(model_.nodes.size());
    strip_of_.assign(model_.nodes.size(), -1);
  }

  int output_of(int node) const { return model_.nodes[roles_[node].last].output; }

  int root_of(int index) const {
    while (links_[index].parent >= 0) index = links_[index].parent;
    return index;
  }

  /// A reshape, or a transpose that moves only axes of size 1.
  bool keeps_order(int n) const {
    const NodeView node = view(n);
    if (node.node.op == kReshape) return true;
    if (node.node.op != kTranspose) return false;
    int last = 0;
    for (int axis = 1; axis < node.input(0).rank; ++axis) {
      const int from = node.attribute(axis);
      if (node.input(0).dims[from] == 1) continue;
      if (from < last) return false;
      last = from;
    }
    return true;
  }

  void link_reshapes() {
    for (int n : order_) {
      if (!keeps_order(n)) continue;
      const int x = model_.nodes[n].inputs[0];
      const int y = model_.nodes[n].output;
      const bool flat = tensor(x).channels() != tensor(y).channels();
      links_[y] = {x, 0, flat};
      if (flat) pinned_[root_of(x)] = true;
    }
  }

  bool can_be_placed(int index) const {
    return links_[index].parent < 0 && !pinned_[index] && tensor(index).element_size() == 1;
  }

  void link_concats() {
    // Backwards: where one concatenation is the beginning of a later one (DenseNet), the later one's buffer
    // holds both.
    for (size_t i = order_.size(); i-- > 0;) {
      const int n = order_[i];
      const NodeView node = view(n);
      if (node.node.op != kConcat) continue;
      const int y = node.node.output;
      std::vector<bool>& copies = copy_inputs_[n];
      copies.assign(node.node.inputs.size(), true);
      if (node.attribute(0) != node.output().rank - 1 || node.output().element_size() != 1) continue;
      if (can_be_placed(y) && link_to_inputs(n)) {
        copies.assign(copies.size(), false);
        continue;
      }
      int64_t offset = 0;
      for (int k = 0; k < node.input_count(); ++k) {
        const int x = node.node.inputs[k];
        if (can_be_placed(x) && root_of(y) != x) {
          links_[x] = {y, offset, false};
          copies[k] = false;
        }
        offset += tensor(x).channels();
      }
    }
  }

  /// Makes a concatenation whose inputs already lie side by side a view of them.
  bool link_to_inputs(int n) {
    const auto& inputs = model_.nodes[n].inputs;
    const int y = model_.nodes[n].output;
    const Place first = place_of(inputs[0]);
    if (first.root == inputs[0] && inputs.size() > 1) return false;
    int64_t offset = first.offset;
    for (int32_t x : inputs) {
      const Place place = place_of(x);
      if (place.root != first.root || place.stride != first.stride || place.offset != offset) return false;
      offset += tensor(x).channels();
    }
    if (first.root == y || tensor(first.root).pixels() != tensor(y).pixels()) return false;
    links_[y] = {first.root, first.offset, false};
    return true;
  }

  void link_slices() {
    for (int n : order_) {
      const NodeView node = view(n);
      if (node.node.op != kSlice || !can_be_placed(node.node.output)) continue;
      const Tensor& x = node.input(0);
      const Tensor& y = node.output();
      const int last = x.rank - 1;
      bool contiguous = last >= 1 && node.attribute(x.rank + last) == 1;
      for (int axis = 1; axis < last; ++axis) contiguous &= x.dims[axis] == y.dims[axis];
      if (contiguous && root_of(node.node.inputs[0]) != node.node.output) {
        links_[node.node.output] = {node.node.inputs[0], node.attribute(last), false};
      }
    }
  }

  struct Place {
    int root = -1;
    int64_t offset = 0;  // bytes
    int64_t stride = 0;  // bytes
  };

  Place place_of(int index) const {
    const Link& link = links_[index];
    const int64_t dense = tensor(index).channels() * tensor(index).element_size();
    if (link.parent < 0) return {index, 0, dense};
    Place place = place_of(link.parent);
    place.offset += link.offset;
    if (link.flat) place.stride = dense;
    return place;
  }

  /// Whether the node needs no step: its output is where its input is, or its inputs were written in place.
  bool is_free(int n) const {
    const Node& node = model_.nodes[n];
    if (keeps_order(n)) return true;
    if (node.op == kSlice) return links_[node.output].parent == node.inputs[0];
    if (node.op != kConcat) return false;
    return std::find(copy_inputs_[n].begin(), copy_inputs_[n].end(), true) == copy_inputs_[n].end();
  }

  ValueRef value_of(int index) const {
    if (index < 0 || tensor(index).constant) return {};
    const Place place = place_of(index);
    return {buffer_of_[place.root], place.offset, place.stride};
  }

  void touch(int index, int step) {
    Buffer& buffer = plan_.buffers[value_of(index).buffer];
    buffer.first = std::min(buffer.first, step);
    buffer.last = std::max(buffer.last, step);
  }

  void add_buffer(int index) {
    if (root_of(index) != index) return;
    Buffer buffer;
    buffer.bytes_per_image = tensor(index).elements * tensor(index).element_size();
    buffer.first = INT32_MAX;
    buffer.last = -1;
    buffer_of_[index] = static_cast<int>(plan_.buffers.size());
    plan_.buffers.push_back(buffer);
  }

  void assign_buffers() {
    buffer_of_.assign(model_.tensors.size(), -1);
    for (const End& end : model_.inputs) add_buffer(end.tensor);
    for (int n : order_) {
      if (!in_strip(n) || is_last_of_strip(n)) add_buffer(output_of(n));
    }
    for (const End& end : model_.inputs) touch(end.tensor, -1);
    int step = 0;
    for (int n : order_) {
      if (!has_step(n)) continue;
      for (int input : step_inputs(n)) {
        if (input >= 0 && !tensor(input).constant) touch(input, step);
      }
      touch(output_of(n), step);
      ++step;
    }
    for (const End& end : model_.outputs) touch(end.tensor, step);
    // An activation that nothing reads: alive where it is written. Views of it may have no step at all.
    for (Buffer& buffer : plan_.buffers) {
      if (keep_all_) buffer = {buffer.bytes_per_image, -1, step};
      if (buffer.first > buffer.last) buffer.first = buffer.last = -1;
    }
  }

  /// The tensors that a node's step reads: its inputs (through a folded pad or concatenation) and the
  /// residual operand.
  std::vector<int> inputs_of(int n) const {
    const Role& role = roles_[n];
    std::vector<int> inputs(model_.nodes[n].inputs.begin(), model_.nodes[n].inputs.end());
    if (role.pad >= 0) inputs[0] = model_.nodes[role.pad].inputs[0];
    if (role.concat >= 0) inputs = model_.nodes[role.concat].inputs;
    if (role.residual >= 0) inputs.push_back(model_.nodes[role.residual].inputs[role.residual_operand]);
    return inputs;
  }

  /// Makes a step of every node that is not free; prepared_ has them by node.
  Status prepare() {
    prepared_.resize(model_.nodes.size());
    for (int n : order_) {
      if (is_free(n)) continue;
      const Role& role = roles_[n];
      const OpDef* op = find_op(model_.nodes[n].op);
      Lowered lowered(view(n));
      const std::vector<int> inputs = inputs_of(n);
      for (int input : inputs) {
        lowered.in_stride.push_back(input < 0 || tensor(input).constant ? 0 : place_of(input).stride);
      }
      lowered.out_stride = place_of(output_of(n)).stride;
      lowered.x = inputs[0] < 0 ? nullptr : &tensor(inputs[0]);
      if (role.pad >= 0) spatial_pads(view(role.pad), lowered.extra_pads);
      if (role.concat >= 0) lowered.concat = &model_.nodes[role.concat];
      if (role.table >= 0) lowered.table = &model_.nodes[role.table];
      if (role.residual >= 0) {
        lowered.residual = &model_.nodes[role.residual];
        lowered.residual_operand = role.residual_operand;
      }
      lowered.copy_input = copy_inputs_[n];
      auto step = op->prepare(lowered, target_);
      if (!step.ok()) {
        return Status(step.status().code(),
                      format("node '%.*s' (%s): %s",
                             static_cast<int>(std::min<size_t>(120, model_.nodes[n].name.size())),
                             model_.nodes[n].name.data(), op->name, step.status().message().c_str()));
      }
      prepared_[n] = std::move(step).value();
    }
    return Status();
  }

  const RowStep* row_step(int n) const { return prepared_[n] ? prepared_[n]->row_step() : nullptr; }
  bool in_strip(int n) const { return strip_of_[n] >= 0; }
  bool is_last_of_strip(int n) const { return in_strip(n) && strips_[strip_of_[n]].back() == n; }
  /// Whether a step stands at this node's place.
  bool has_step(int n) const { return !is_free(n) && (!in_strip(n) || is_last_of_strip(n)); }

  /// The node whose step alone reads what node n's step writes, and as its image; -1 if there is none.
  int streams_into(int n) const {
    const int output = output_of(n);
    const int user = single_user(output);
    if (user < 0 || links_[output].parent >= 0) return -1;
    const int reader = roles_[user].absorbed ? roles_[user].owner : user;
    const RowStep* step = row_step(reader);
    const bool joins =
        step != nullptr && step->streams() && !in_strip(reader) && inputs_of(reader)[0] == output;
    return joins ? reader : -1;
  }

  /// Joins windows (depthwise, pools) with the product before and the 1x1 product after them where strips of
  /// rows save memory (ops/strip_step.h).
  Status join_strips() {
    for (int n : order_) {
      // A chain begins before its window: with the product that feeds it, or with the window itself.
      if (row_step(n) == nullptr || in_strip(n)) continue;
      std::vector<int> nodes = {n};
      const bool starts_with_window = is_window(n);
      if (!starts_with_window) {
        const int window = streams_into(n);
        if (window < 0 || !is_window(window)) continue;
        nodes.push_back(window);
      }
      const int after = streams_into(nodes.back());
      if (after >= 0 && !is_window(after)) nodes.push_back(after);
      if (nodes.size() < 2) continue;
      std::vector<const RowStep*> chain;
      for (int node : nodes) chain.push_back(row_step(node));
      const StripSize size = strip_size(chain);
      if (size.rows == 0) continue;
      std::vector<std::unique_ptr<Step>> steps;
      for (int node : nodes) {
        strip_of_[node] = static_cast<int>(strips_.size());
        steps.push_back(std::move(prepared_[node]));
      }
      auto strip = make_strip_step(std::move(steps), size, target_);
      EDGEQ_RETURN_IF_ERROR(strip.status());
      prepared_[nodes.back()] = std::move(strip).value();
      strips_.push_back(std::move(nodes));
    }
    return Status();
  }

  /// The tensors that the step at node n's place may write over: each output is written where, and after, its
  /// own element of them was read. They are the operand that a product adds, and what an elementwise step
  /// reads.
  std::vector<int> overwritable(int n) const {
    if (roles_[n].residual >= 0) return {inputs_of(n).back()};
    const Node& node = model_.nodes[n];
    if (!is_binary(n) && node.op != kLut) return {};
    std::vector<int> operands;
    const Tensor& y = tensor(node.output);
    for (int32_t input : node.inputs) {
      const Tensor& x = tensor(input);
      if (!x.constant && std::equal(x.dims, x.dims + x.rank, y.dims, y.dims + y.rank))
        operands.push_back(input);
    }
    return operands;
  }

  /// Lets steps write over what they read last.
  void write_in_place() {
    // The node at whose place a node's step runs.
    const auto runs_at = [this](int node) {
      const int owner = roles_[node].absorbed ? roles_[node].owner : node;
      return roles_[in_strip(owner) ? strips_[strip_of_[owner]].back() : owner].last;
    };
    std::vector<bool> has_views(model_.tensors.size(), false);
    for (const Link& link : links_) {
      if (link.parent >= 0) has_views[link.parent] = true;
    }
    std::vector<bool> in_place(model_.tensors.size(), false);
    std::vector<int> last_use(model_.tensors.size(), -1);
    for (int n = 0; n < node_count(); ++n) {
      for (int32_t input : model_.nodes[n].inputs) {
        if (input >= 0) last_use[input] = std::max(last_use[input], runs_at(n));
      }
    }
    for (int n : order_) {
      if (!has_step(n)) continue;
      const int output = output_of(n);
      const std::vector<int> inputs = step_inputs(n);
      for (int operand : overwritable(n)) {
        const bool read_once = std::count(inputs.begin(), inputs.end(), operand) == 1;
        const bool whole = links_[operand].parent < 0 || in_place[operand];
        const bool placeable = whole && links_[output].parent < 0 && !has_views[operand] &&
                               !is_output_[operand] && producer_[operand] >= 0;
        if (!read_once || !placeable || last_use[operand] != runs_at(n)) continue;
        links_[output] = {operand, 0, false};
        in_place[output] = true;
        break;
      }
    }
  }

  bool is_window(int n) const { return row_step(n) != nullptr && row_step(n)->is_window(); }

  /// The tensors that the step at node n's place reads, in the order of its inputs.
  std::vector<int> step_inputs(int n) const {
    if (!in_strip(n)) return inputs_of(n);
    const std::vector<int>& nodes = strips_[strip_of_[n]];
    std::vector<int> inputs = {inputs_of(nodes.front())[0]};
    for (int node : nodes) inputs.push_back(roles_[node].residual >= 0 ? inputs_of(node).back() : -1);
    return inputs;
  }

  void place_steps() {
    for (int n : order_) {
      if (!has_step(n)) continue;
      PlannedStep planned;
      for (int input : step_inputs(n)) planned.inputs.push_back(value_of(input));
      planned.output = value_of(output_of(n));
      for (const ValueRef& input : planned.inputs) {
        planned.shares_buffer |= input.buffer == planned.output.buffer;
      }
      planned.step = std::move(prepared_[n]);
      plan_.scratch_bytes = std::max(plan_.scratch_bytes, planned.step->scratch_bytes());
      const int step = static_cast<int>(plan_.steps.size());
      step_of_[n] = {step, -1};
      if (in_strip(n)) {
        const std::vector<int>& nodes = strips_[strip_of_[n]];
        for (size_t i = 0; i < nodes.size(); ++i) step_of_[nodes[i]] = {step, static_cast<int>(i)};
      }
      plan_.steps.push_back(std::move(planned));
    }
  }

  std::vector<int64_t> shape_of(const Tensor& found) const {
    std::vector<int64_t> shape(found.dims, found.dims + found.rank);
    shape[0] = -1;
    return shape;
  }

  int describe(int index) {
    const Tensor& found = tensor(index);
    Activation activation;
    activation.name = found.name;
    activation.shape = shape_of(found);
    activation.is_float = found.type == DataType::kFloat32;
    activation.bits = found.bits;
    activation.scale = activation.is_float ? 0.0f : found.scale();
    activation.zero_point = found.zero_point;
    activation.pixels = found.pixels();
    activation.channels = found.channels();
    if (place_of(index).root >= 0 && buffer_of_[place_of(index).root] >= 0) activation.at = value_of(index);
    plan_.activations.push_back(std::move(activation));
    return static_cast<int>(plan_.activations.size()) - 1;
  }

  void describe() {
    std::vector<int> activation_of(model_.tensors.size(), -1);
    for (const End& end : model_.inputs) activation_of[end.tensor] = describe(end.tensor);
    for (int n = 0; n < node_count(); ++n) {
      const Node& node = model_.nodes[n];
      activation_of[node.output] = describe(node.output);
      const Tensor& y = tensor(node.output);
      Layer layer;
      layer.name = node.name;
      layer.op = find_op(node.op)->name;
      layer.shape = shape_of(y);
      layer.bits = y.bits;
      const int owner = roles_[n].owner;
      const auto found = step_of_.find(owner);
      if (found != step_of_.end()) {
        layer.step = found->second.step;
        layer.part = owner == n ? found->second.part : -1;
        layer.primary = owner == n && (!in_strip(n) || is_last_of_strip(n));
      }
      plan_.layers.push_back(std::move(layer));
    }
    for (const End& end : model_.inputs) plan_.inputs.push_back({activation_of[end.tensor], end.nchw});
    for (const End& end : model_.outputs) plan_.outputs.push_back({activation_of[end.tensor], end.nchw});
  }

  const Model& model_;
  const bool keep_all_;
  Target& target_;
  Plan plan_;
  std::vector<int> uses_, only_user_, producer_;
  std::vector<bool> is_output_;
  std::vector<Role> roles_;
  std::vector<int> order_;  // nodes that are not absorbed, in execution order
  std::vector<Link> links_;
  std::vector<bool> pinned_;
  std::vector<std::vector<bool>> copy_inputs_;
  std::vector<int> buffer_of_;
  std::vector<std::unique_ptr<Step>> prepared_;  // a node
  std::vector<std::vector<int>> strips_;         // the nodes of each chain
  std::vector<int> strip_of_;                    // a node's chain, or -1
  struct StepRef {
    int step = -1;
    int part = -1;
  };
  std::map<int, StepRef> step_of_;
};

}  // namespace

Result<Plan> make_plan(const Model& model, bool keep_all, Target& target) {
  return Planner(model, keep_all, target).run();
}

}  // namespace edgeq
