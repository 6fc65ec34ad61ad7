#include "runner/feeds.h"

#include <utility>

#include "ops/check.h"
#include "runner/session_options.h"

namespace edgeq {

Result<Feeds> Feeds::open(Session& session, const std::vector<std::string>& paths, bool always_float) {
  if (paths.size() != session.inputs().size()) {
    std::string names;
    for (const EndInfo& end : session.inputs()) names += (names.empty() ? "" : ", ") + end.name;
    return Status::invalid_argument(
        format("the model has %zu inputs (%s): give --input once for each, in this order",
               session.inputs().size(), names.c_str()));
  }
  Feeds feeds(session);
  feeds.always_float_ = always_float;
  for (size_t i = 0; i < paths.size(); ++i) {
    auto file = NpyReader::open(paths[i]);
    EDGEQ_RETURN_IF_ERROR(file.status());
    EDGEQ_RETURN_IF_ERROR(feeds.check(file.value(), i));
    feeds.files_.push_back(std::move(file).value());
  }
  return feeds;
}

Status Feeds::check(const NpyReader& file, size_t input) const {
  const EndInfo& end = session_->inputs()[input];
  std::vector<int64_t> wanted = end.shape;
  if (file.type() == NpyType::kUint8) {
    const Status& takes = session_->takes_images();
    if (!takes.ok()) return Status(takes.code(), file.path() + " holds uint8, but " + takes.message());
    wanted = session_->image_shape();
    wanted.insert(wanted.begin(), -1);
  }
  const std::vector<int64_t>& shape = file.shape();
  bool fits = shape.size() == wanted.size() && shape[0] >= 1;
  for (size_t axis = 1; fits && axis < shape.size(); ++axis) fits = shape[axis] == wanted[axis];
  if (!fits) {
    std::string takes =
        array_text(NpyType::kFloat32, end.shape) + " or " + array_text(NpyType::kInt8, end.shape);
    if (file.type() == NpyType::kUint8) takes = array_text(NpyType::kUint8, wanted);
    return Status::invalid_argument(file.path() + " is " + array_text(file.type(), shape) +
                                    ", but the model's input " + end.name + " takes " + takes +
                                    ", N at least 1");
  }
  if (input == 0) return Status();
  if (file.type() != files_[0].type()) {
    return Status::invalid_argument("the inputs must be all float32 or all int8 codes; " + file.path() +
                                    " differs from " + files_[0].path());
  }
  if (shape[0] != images()) {
    return Status::invalid_argument(file.path() + " does not have as many images as " + files_[0].path());
  }
  return Status();
}

Status Feeds::run(int64_t first, int64_t count) {
  const NpyType type = files_[0].type();
  in_.resize(files_.size());
  out_.resize(session_->outputs().size());
  std::vector<InputArray> inputs;
  std::vector<OutputArray> outputs;
  for (size_t i = 0; i < files_.size(); ++i) {
    in_[i].resize(static_cast<size_t>(count * elements_of(session_->inputs()[i])) * npy_bytes(type));
    EDGEQ_RETURN_IF_ERROR(files_[i].read(first, count, in_[i].data()));
    inputs.push_back({in_[i].data(), type == NpyType::kFloat32});
  }
  for (size_t i = 0; i < out_.size(); ++i) {
    const int64_t elements = count * elements_of(session_->outputs()[i]);
    out_[i].resize(static_cast<size_t>(elements) * (gives_float(i) ? 4 : 1));
    outputs.push_back({out_[i].data(), gives_float(i)});
  }
  if (type == NpyType::kUint8) return session_->run_images(in_[0].data(), outputs, count);
  return session_->run(inputs, outputs, count);
}

}  // namespace edgeq
