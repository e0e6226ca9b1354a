// SPDX-License-Identifier: Apache-2.0
#include "common/checks.h"

#include "common/parallel.h"
#include "longclock/time/time_arguments.h"

namespace longclock {

std::ostream& operator<<(std::ostream& out, ShapeOf shape) {
  return out << bracketed(shape.tensor.sizes());
}

bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != b.size(d)) return false;
  }
  return true;
}

const char* dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::UInt16:
      return "uint16";
    case ScalarType::UInt32:
      return "uint32";
    case ScalarType::UInt64:
      return "uint64";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    case ScalarType::Float8_e5m2:
      return "float8_e5m2";
    case ScalarType::Float8_e4m3fn:
      return "float8_e4m3fn";
    case ScalarType::Float8_e5m2fnuz:
      return "float8_e5m2fnuz";
    case ScalarType::Float8_e4m3fnuz:
      return "float8_e4m3fnuz";
    case ScalarType::Float8_e8m0fnu:
      return "float8_e8m0fnu";
    default:
      return "a dtype of 8 bits or fewer";
  }
}

void check_shape(const char* op, const char* argument, const Tensor& tensor,
                 std::initializer_list<Dim> dims, const char* why) {
  const Sizes sizes = tensor.sizes();
  check_shape(op, argument, sizes.data(), sizes.size(), dims, why);
}

void check_defined(const char* op, const char* argument, const Tensor& tensor) {
  check(tensor.defined(), op, ": ", argument, " must be a tensor, got None");
}

namespace {

std::string float_remedy(const char* op, const Tensor& tensor) {
  if (tensor.scalar_type() != ScalarType::Double) return "convert it with .float()";
  std::string name = op;
  for (const char* suffix : {"_backward", "_table_grad"}) {
    if (const size_t at = name.find(suffix); at != std::string::npos) name.resize(at);
  }
  return "longclock.reference." + name + " takes float64";
}

}  // namespace

DType check_float(const char* op, const char* argument, const Tensor& tensor) {
  check_defined(op, argument, tensor);
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      break;
  }
  check(false, op, ": ", argument, " must be float32, float16 or bfloat16, got ", dtype_of(tensor),
        "; ", float_remedy(op, tensor));
  return DType::kFloat32;
}

void check_matches(const char* op, const char* argument, const Tensor& tensor,
                   const char* rows_name, const Tensor& rows) {
  check_float(op, argument, tensor);
  const ScalarType type = tensor.scalar_type();
  check(type == rows.scalar_type() || type == ScalarType::Float, op, ": ", argument, " must be ",
        rows.scalar_type() == ScalarType::Float ? "" : "float32, or ", dtype_of(rows), " to match ",
        rows_name, ", got ", dtype_of(tensor), "; convert it with .to(", rows_name, ".dtype)");
}

void check_int(const char* op, const char* argument, const Tensor& tensor) {
  check_defined(op, argument, tensor);
  check(tensor.scalar_type() == ScalarType::Int || tensor.scalar_type() == ScalarType::Long, op,
        ": ", argument, " must be int32 or int64, got ", dtype_of(tensor), "; convert with ",
        argument, ".to(torch.int64)");
}

void check_seconds(const char* op, const char* argument, const Tensor& times) {
  if (times.scalar_type() != ScalarType::Long) return;
  // Without dimensions that repeat one element.
  std::vector<int64_t> sizes, strides;
  int64_t count = 1;
  bool contiguous = true;
  for (int64_t d = times.dim() - 1; d >= 0; --d) {
    const int64_t size = times.size(d), stride = times.stride(d);
    if (size == 0) return;
    if (size == 1 || stride == 0) continue;
    contiguous = contiguous && stride == count;
    count *= size;
    sizes.insert(sizes.begin(), size);
    strides.insert(strides.begin(), stride);
  }
  if (contiguous) {
    parallel_elements(count, [&](int64_t begin, int64_t end) {
      check_seconds(op, argument, int_array(times), nullptr, begin, end);
    });
    return;
  }
  const auto* values = static_cast<const int64_t*>(times.const_data_ptr());
  int64_t position = 0;
  for_each_offset(sizes, strides,
                  [&](int64_t offset) { check_second(op, argument, values[offset], position++); });
}

Tensor padded_rows(const Tensor& tensor, ScalarType rounded_to) {
  return padded_rows(tensor, rounded_to, {tensor.size(tensor.dim() - 1)});
}

DType float_type(ScalarType type) {
  return type == ScalarType::Half       ? DType::kFloat16
         : type == ScalarType::BFloat16 ? DType::kBFloat16
                                        : DType::kFloat32;
}

Tensor padded_rows(const Tensor& tensor, ScalarType rounded_to, Sizes widths) {
  const Tensor rows = as_contiguous(tensor);
  int64_t dim = 0, padded = 0;
  for (const int64_t width : widths) {
    dim += width;
    padded += padded_dim(width);
  }
  const ScalarType dtype = rows.scalar_type();
  if (dtype == ScalarType::Float && rounded_to == dtype && padded == dim) return rows;
  const int64_t count = dim == 0 ? 0 : rows.numel() / dim;
  Tensor out = make_empty(rows, {count, padded}, ScalarType::Float);
  const QueryRowsParams params{float_type(dtype),
                               rows.const_data_ptr(),
                               dim,
                               float_type(rounded_to),
                               widths.data(),
                               static_cast<int64_t>(widths.size()),
                               static_cast<float*>(out.mutable_data_ptr()),
                               padded};
  parallel_tasks(count, count * padded,
                 [&](int64_t begin, int64_t end) { query_rows_cpu(params, begin, end); });
  return out;
}

IntArray int_array(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.scalar_type() == ScalarType::Long};
}

namespace {

Tensor contiguous_weight(const char* op, const char* argument, const Tensor& weight) {
  check_defined(op, argument, weight);
  return as_contiguous(weight);
}

}  // namespace

TimeTermArguments::TimeTermArguments(const char* op, const Tensor& w1_in, const Tensor& b1_in,
                                     const Tensor& w2_in, const Tensor& b2_in, const Ints& periods,
                                     const Floats& units)
    : w1(contiguous_weight(op, "mlp w1", w1_in)),
      b1(contiguous_weight(op, "mlp b1", b1_in)),
      w2(contiguous_weight(op, "mlp w2", w2_in)),
      b2(contiguous_weight(op, "mlp b2", b2_in)) {
  read_clocks(op, periods, units, &time);
  read(op);
}

TimeTermArguments::TimeTermArguments(const char* op, const Tensor& w1_in, const Tensor& b1_in,
                                     const Tensor& w2_in, const Tensor& b2_in, double unit,
                                     bool elapsed)
    : w1(contiguous_weight(op, "mlp w1", w1_in)),
      b1(contiguous_weight(op, "mlp b1", b1_in)),
      w2(contiguous_weight(op, "mlp w2", w2_in)),
      b2(contiguous_weight(op, "mlp b2", b2_in)) {
  check_unit(op, unit);
  time.clocks = 1;
  time.clock[0].mlp.unit = unit;
  time.clock[0].mlp.elapsed = elapsed;
  read(op);
}

void TimeTermArguments::read(const char* op) {
  const struct {
    const char* name;
    const Tensor& tensor;
  } parameters[] = {{"w1", w1}, {"b1", b1}, {"w2", w2}, {"b2", b2}};
  for (const auto& [name, tensor] : parameters) {
    check(tensor.scalar_type() == ScalarType::Float, op, ": mlp ", name, " must be float32, got ",
          dtype_of(tensor), "; ", float_remedy(op, tensor));
  }
  const int64_t clocks = time.clocks, most = kMaxTimeHidden / clocks;
  const int64_t hidden = w1.dim() < 2 ? 0 : w1.size(w1.dim() - 2);
  const bool fits =
      w1.dim() >= 2 && w1.size(w1.dim() - 1) == kTimeFeatures && hidden >= 1 && hidden <= most;
  if (clocks == 1) {
    check(fits && w1.dim() == 2, op, ": mlp w1 must have shape [h, 4] with h from 1 to ", most,
          ", got ", shape_of(w1));
    check_shape(op, "mlp b1", b1, {{"h", hidden}}, "to match w1");
    check_shape(op, "mlp w2", w2, {{"h", hidden}}, "to match w1");
    check(b2.numel() == 1 && b2.dim() <= 1, op, ": mlp b2 must be a scalar, got shape ",
          shape_of(b2));
  } else {
    check(fits && w1.dim() == 3 && w1.size(0) == clocks, op,
          ": mlp w1 must have shape [C, h, 4] with C = ", clocks, " clocks and h from 1 to ", most,
          ", got ", shape_of(w1));
    check_shape(op, "mlp b1", b1, {{"C", clocks}, {"h", hidden}}, "to match w1");
    check_shape(op, "mlp w2", w2, {{"C", clocks}, {"h", hidden}}, "to match w1");
    check_shape(op, "mlp b2", b2, {{"C", clocks}}, "to match w1");
  }
  const auto floats = [](const Tensor& tensor) {
    return static_cast<const float*>(tensor.const_data_ptr());
  };
  read_parameters(floats(w1), floats(b1), floats(w2), floats(b2), static_cast<int>(hidden), &time);
}

TimeMlpGradients::TimeMlpGradients(const TimeTermArguments& arguments) {
  const auto empty_like = [](const Tensor& tensor) { return make_empty(tensor, tensor.sizes()); };
  tensors = {empty_like(arguments.w1), empty_like(arguments.b1), empty_like(arguments.w2),
             empty_like(arguments.b2)};
}

TimeMlpGradient TimeMlpGradients::view(int clock, int hidden) const {
  const auto floats = [](const Tensor& tensor) {
    return static_cast<float*>(tensor.mutable_data_ptr());
  };
  const auto& [w1, b1, w2, b2] = tensors;
  return {floats(w1) + clock * hidden * kTimeFeatures, floats(b1) + clock * hidden,
          floats(w2) + clock * hidden, floats(b2) + clock};
}

}  // namespace longclock
