#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>

#include "base/cpu_features.h"
#include "base/xxh64.h"
#include "bindings/machine.h"
#include "bindings/statistics.h"
#include "kernels/copy/copy.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/lut/lut.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"
#include "kernels/resize/resize.h"
#include "kernels/softmax/softmax.h"
#include "runtime/prediction.h"
#include "runtime/session.h"

namespace py = pybind11;

namespace edgeq {
namespace {

using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

/// Raises the class of edgeq.errors that belongs to the status.
void check(const Status& status) {
  if (status.ok()) return;
  const char* name = "BackendError";
  switch (status.code()) {
    case StatusCode::kInvalidModel:
    case StatusCode::kUnsupported:
      name = "FormatError";
      break;
    case StatusCode::kInvalidArgument:
    case StatusCode::kIo:
      name = "UsageError";
      break;
    default:
      break;
  }
  const py::object type = py::module_::import("edgeq.errors").attr(name);
  PyErr_SetString(type.ptr(), status.message().c_str());
  throw py::error_already_set();
}

py::tuple shape_tuple(const std::vector<int64_t>& shape) {
  py::tuple result(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) result[i] = shape[i];
  return result;
}

/// (name, shape with -1 for the batch, dtype, bits, scale, zero point)
py::tuple end_tuple(const EndInfo& end) {
  return py::make_tuple(end.name, shape_tuple(end.shape), end.is_float ? "float32" : "int8", end.bits,
                        end.scale, end.zero_point);
}

std::unique_ptr<Session> load(const py::object& source, int threads, const std::string& max_isa,
                              uint64_t max_memory_bytes, bool profile, bool keep_all, int64_t split_cost,
                              const std::map<std::string, std::string>& tuning) {
  SessionOptions options;
  options.threads = threads;
  options.max_isa = max_isa;
  options.max_memory_bytes = max_memory_bytes;
  options.profile = profile;
  options.keep_all = keep_all;
  options.split_cost = split_cost;
  options.tuning = tuning;
  Result<std::unique_ptr<Session>> session(nullptr);
  if (py::isinstance<py::bytes>(source)) {
    char* data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(source.ptr(), &data, &size) != 0) throw py::error_already_set();
    py::gil_scoped_release release;
    session = Session::load(reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size), options);
  } else {
    const std::string path = py::cast<std::string>(source);
    py::gil_scoped_release release;
    session = Session::load(path, options);
  }
  check(session.status());
  return std::move(session).value();
}

/// Calls run(outputs) without the interpreter's lock; the arrays that it filled.
template <typename Run>
py::list run_with_outputs(const Session& session, int64_t batch, bool codes, Run run) {
  py::list results;
  std::vector<OutputArray> outputs;
  for (const EndInfo& info : session.outputs()) {
    std::vector<py::ssize_t> shape(info.shape.begin(), info.shape.end());
    shape[0] = batch;
    const bool is_float = info.is_float || !codes;
    py::array array =
        is_float ? py::array(py::dtype::of<float>(), shape) : py::array(py::dtype::of<int8_t>(), shape);
    outputs.push_back({array.mutable_data(), is_float});
    results.append(array);
  }
  Status status;
  {
    py::gil_scoped_release release;
    status = run(outputs);
  }
  check(status);
  return results;
}

py::list run(Session& session, const std::vector<py::array>& arrays, bool codes) {
  if (arrays.size() != session.inputs().size()) {
    check(Status::invalid_argument("the model has " + std::to_string(session.inputs().size()) + " inputs"));
  }
  std::vector<InputArray> inputs;
  int64_t batch = -1;
  for (size_t i = 0; i < arrays.size(); ++i) {
    const py::array& array = arrays[i];
    const EndInfo& info = session.inputs()[i];
    const bool is_float = py::isinstance<py::array_t<float>>(array);
    bool fits = (is_float || py::isinstance<py::array_t<int8_t>>(array)) &&
                (array.flags() & py::array::c_style) != 0 &&
                array.ndim() == static_cast<py::ssize_t>(info.shape.size());
    for (py::ssize_t axis = 1; fits && axis < array.ndim(); ++axis) {
      fits = array.shape(axis) == info.shape[static_cast<size_t>(axis)];
    }
    if (fits && batch < 0) batch = array.shape(0);
    if (!fits || array.shape(0) != batch || batch < 1) {
      check(Status::invalid_argument("input " + info.name + " has the wrong shape, type or memory layout"));
    }
    inputs.push_back({array.data(), is_float});
  }
  return run_with_outputs(session, batch, codes, [&](const std::vector<OutputArray>& outputs) {
    return session.run(inputs, outputs, batch);
  });
}

/// uint8 images, the batch first.
py::list run_images(Session& session, const py::array& images) {
  check(session.takes_images());
  const std::vector<int64_t>& shape = session.image_shape();
  bool fits = py::isinstance<py::array_t<uint8_t>>(images) && (images.flags() & py::array::c_style) != 0 &&
              images.ndim() == 4 && images.shape(0) >= 1;
  for (py::ssize_t axis = 0; fits && axis < 3; ++axis) {
    fits = images.shape(axis + 1) == shape[static_cast<size_t>(axis)];
  }
  if (!fits) check(Status::invalid_argument("the images have the wrong shape, type or memory layout"));
  const int64_t batch = images.shape(0);
  return run_with_outputs(session, batch, false, [&](const std::vector<OutputArray>& outputs) {
    return session.run_images(static_cast<const uint8_t*>(images.data()), outputs, batch);
  });
}

/// Answers, probabilities, margins and flags of rows of scores, as the file's guard has them.
py::tuple predict_rows(const Session& session, const FloatArray& scores) {
  const auto classes = session.classes();
  check(classes.status());
  if (scores.ndim() != 2 || scores.shape(1) != classes.value()) {
    check(Status::invalid_argument("the scores have the wrong shape"));
  }
  const py::ssize_t rows = scores.shape(0);
  py::array_t<int64_t> answers(rows);
  py::array_t<float> probabilities(rows), margins(rows);
  py::array_t<bool> defer(rows);
  for (py::ssize_t i = 0; i < rows; ++i) {
    const Prediction row = predict(scores.data(i), static_cast<size_t>(classes.value()),
                                   session.gives_probabilities(), session.guard());
    answers.mutable_at(i) = row.answer;
    probabilities.mutable_at(i) = row.probability;
    margins.mutable_at(i) = row.margin;
    defer.mutable_at(i) = row.defer;
  }
  return py::make_tuple(answers, probabilities, margins, defer);
}

py::list layers(const Session& session) {
  py::list result;
  for (const LayerInfo& layer : session.layers()) {
    py::dict entry;
    entry["name"] = layer.name;
    entry["op"] = layer.op;
    entry["kernel"] = layer.kernel;
    entry["isa"] = layer.isa;
    entry["fused_into"] = layer.fused_into;
    entry["shape"] = shape_tuple(layer.shape);
    entry["bits"] = layer.bits;
    entry["weight_bits"] = layer.weight_bits;
    entry["weight_bytes"] = layer.bytes_packed;
    entry["macs"] = layer.macs;
    entry["work"] = layer.work;
    entry["median_ns"] = layer.median_ns;
    entry["tuning_key"] = layer.tuning_key;
    py::list candidates;
    for (const char* name : layer.candidates) candidates.append(name);
    entry["candidates"] = candidates;
    result.append(entry);
  }
  return result;
}

py::list read_activations(const Session& session) {
  py::list result;
  const std::vector<Activation>& activations = session.activations();
  for (size_t i = 0; i < activations.size(); ++i) {
    std::vector<py::ssize_t> shape(activations[i].shape.begin(), activations[i].shape.end());
    shape[0] = std::max<int64_t>(1, session.last_batch());
    py::array array = activations[i].is_float ? py::array(py::dtype::of<float>(), shape)
                                              : py::array(py::dtype::of<int8_t>(), shape);
    check(session.read_activation(i, array.mutable_data()));
    result.append(py::make_tuple(activations[i].name, array));
  }
  return result;
}

template <typename V>
void add_names(py::dict& families, const char* family, const std::vector<const V*>& variants) {
  py::list names = families.contains(family) ? py::list(families[family]) : py::list();
  for (const V* variant : variants) names.append(variant->name);
  families[family] = names;
}

py::dict kernel_variants(const std::string& max_isa) {
  auto isas = usable_isas(max_isa.empty() ? std::getenv("EDGEQ_MAX_ISA") : max_isa.c_str());
  check(isas.status());
  const IsaSet set = isas.value();
  py::dict families;
  add_names(families, "gemm", gemm_variants(set));
  add_names(families, "depthwise", depthwise_variants(set));
  add_names(families, "elementwise", binary_variants(set));
  add_names(families, "lut", lut_variants(set));
  add_names(families, "pool", pool_variants(set));
  add_names(families, "pool", mean_variants(set));
  add_names(families, "quantize", quantize_variants(set));
  add_names(families, "quantize", dequantize_variants(set));
  add_names(families, "quantize", recode_variants(set));
  add_names(families, "resize", resize_variants(set));
  add_names(families, "softmax", softmax_variants(set));
  add_names(families, "copy", copy_variants(set));
  add_names(families, "copy", interleave_variants(set));
  add_names(families, "copy", pad_variants(set));
  return families;
}

py::dict cpu_info() {
  const CpuFeatures features = detect_cpu_features();
  const char* cap = std::getenv("EDGEQ_MAX_ISA");
  auto usable = usable_isas(cap);
  check(usable.status());
  py::list available;
  py::list refused;
  const bool no_amx = amx_permission() == AmxPermission::kRefused;
  for (Isa isa : isas_of(features).levels()) {
    (no_amx && isa == Isa::kAmxInt8 ? refused : available).append(isa_name(isa));
  }
  py::dict info;
  info["refused"] = refused;
  info["model"] = features.brand;
  info["available"] = available;
  info["in_use"] = isa_name(usable.value().best());
  info["cap"] = cap == nullptr ? "" : cap;
  return info;
}

py::list peaks(const std::string& max_isa) {
  auto isas = usable_isas(max_isa.empty() ? std::getenv("EDGEQ_MAX_ISA") : max_isa.c_str());
  check(isas.status());
  std::vector<PeakRate> rates;
  {
    py::gil_scoped_release release;
    rates = measure_peaks(isas.value());
  }
  py::list result;
  for (const PeakRate& rate : rates) {
    result.append(py::make_tuple(rate.name, isa_name(rate.isa), rate.macs_per_second));
  }
  return result;
}

uint64_t hash(const py::buffer& buffer) {
  const py::buffer_info info = buffer.request();
  const size_t size = static_cast<size_t>(info.size * info.itemsize);
  py::ssize_t dense = info.itemsize;
  for (py::ssize_t axis = info.ndim; axis-- > 0;) {
    if (info.shape[static_cast<size_t>(axis)] > 1 && info.strides[static_cast<size_t>(axis)] != dense) {
      check(Status::invalid_argument("xxh64 needs contiguous bytes"));
    }
    dense *= info.shape[static_cast<size_t>(axis)];
  }
  py::gil_scoped_release release;
  return xxh64(static_cast<const uint8_t*>(info.ptr), size);
}

py::tuple minmax_of(const FloatArray& values) {
  if (values.size() == 0) check(Status::invalid_argument("minmax of no values"));
  float low = 0, high = 0;
  {
    py::gil_scoped_release release;
    minmax(values.data(), static_cast<size_t>(values.size()), &low, &high);
  }
  return py::make_tuple(low, high);
}

py::array_t<int64_t> histogram_of(const FloatArray& values, double low, double high, int64_t bins) {
  if (bins < 1 || bins > 1 << 24 || !(high > low)) {
    check(Status::invalid_argument("a histogram needs 1 to 2^24 bins and high above low"));
  }
  py::array_t<int64_t> counts(bins);
  std::fill(counts.mutable_data(), counts.mutable_data() + bins, int64_t{0});
  int64_t* to = counts.mutable_data();
  const float factor = static_cast<float>(static_cast<double>(bins) / (high - low));
  {
    py::gil_scoped_release release;
    histogram(values.data(), static_cast<size_t>(values.size()), static_cast<float>(low), factor,
              static_cast<size_t>(bins), to);
  }
  return counts;
}

}  // namespace
}  // namespace edgeq

PYBIND11_MODULE(_native, m) {
  using namespace edgeq;
  m.doc() = "The native engine of edgeq; edgeq.session is its Python side.";

  py::class_<Session>(m, "Session")
      .def(py::init(&load), py::arg("source"), py::kw_only(), py::arg("threads"), py::arg("max_isa"),
           py::arg("max_memory_bytes"), py::arg("profile"), py::arg("keep_all"),
           py::arg("split_cost") = SessionOptions().split_cost,
           py::arg("tuning") = std::map<std::string, std::string>())
      .def("run", &run, py::arg("inputs"), py::arg("codes"))
      .def("run_images", &run_images, py::arg("images"))
      .def("predict_rows", &predict_rows, py::arg("scores"))
      .def("layers", &layers)
      .def("read_activations", &read_activations)
      .def("set_profile", &Session::set_profile, py::arg("profile"))
      .def(
          "arena_bytes",
          [](const Session& session, int64_t batch) {
            auto bytes = session.arena_bytes(batch);
            check(bytes.status());
            return bytes.value();
          },
          py::arg("batch"))
      .def_property_readonly("inputs",
                             [](const Session& session) {
                               py::list ends;
                               for (const EndInfo& end : session.inputs()) ends.append(end_tuple(end));
                               return ends;
                             })
      .def_property_readonly("outputs",
                             [](const Session& session) {
                               py::list ends;
                               for (const EndInfo& end : session.outputs()) ends.append(end_tuple(end));
                               return ends;
                             })
      .def_property_readonly(
          "guard",
          [](const Session& session) {
            const Guard& guard = session.guard();
            return guard.present ? py::object(py::make_tuple(guard.temperature, guard.margin)) : py::none();
          })
      .def_property_readonly("image_refusal",
                             [](const Session& session) { return session.takes_images().message(); })
      .def_property_readonly(
          "image_shape",
          [](const Session& session) {
            return session.takes_images().ok() ? py::object(shape_tuple(session.image_shape())) : py::none();
          })
      .def_property_readonly("threads", &Session::threads)
      .def_property_readonly("isa", [](const Session& session) { return isa_name(session.isas().best()); })
      .def_property_readonly("weight_bytes", &Session::weight_bytes)
      .def_property_readonly("macs", &Session::macs)
      .def_property_readonly("work", &Session::work)
      .def_property_readonly("file_bytes", &Session::file_bytes);

  m.def("cpu_info", &cpu_info);
  m.def("kernel_variants", &kernel_variants, py::arg("max_isa") = "");
  m.def("measure_peaks", &peaks, py::arg("max_isa") = "");
  m.def("measure_clock", &measure_clock_hertz, py::call_guard<py::gil_scoped_release>());
  m.def("xxh64", &hash, py::arg("data"));
  m.def("minmax", &minmax_of, py::arg("values"));
  m.def("histogram", &histogram_of, py::arg("values"), py::arg("low"), py::arg("high"), py::arg("bins"));
}
