// SPDX-License-Identifier: Apache-2.0
#include "checks.h"

#include <cmath>
#include <cstring>

namespace longclock {

std::string bracketed(Sizes sizes) {
  std::ostringstream text;
  text << '[';
  for (size_t i = 0; i < sizes.size(); ++i) text << (i == 0 ? "" : ", ") << sizes[i];
  text << ']';
  return text.str();
}

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
    case ScalarType::Bool:
      return "bool";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    default:
      return "a dtype of 8 bits or fewer";
  }
}

void check_shape(const char* op, const char* argument, const Tensor& tensor,
                 std::initializer_list<Dim> dims, const char* why) {
  bool same = tensor.dim() == static_cast<int64_t>(dims.size());
  int64_t place = 0;
  for (const Dim& dim : dims) same = same && tensor.size(place++) == dim.size;
  if (same) return;
  std::ostringstream names;
  const char* comma = "";
  std::vector<int64_t> sizes;
  for (const Dim& dim : dims) {
    names << comma << dim.name;
    comma = ", ";
    sizes.push_back(dim.size);
  }
  check(false, op, ": ", argument, " must have shape [", names.str(), "] = ", bracketed(sizes), " ",
        why, ", got ", shape_of(tensor));
}

DType check_float(const char* op, const char* argument, const Tensor& tensor) {
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
        tensor.scalar_type() == ScalarType::Double ? "; longclock.reference takes float64"
                                                   : "; convert it with .float()");
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
  check(tensor.scalar_type() == ScalarType::Int || tensor.scalar_type() == ScalarType::Long, op,
        ": ", argument, " must be int32 or int64, got ", dtype_of(tensor),
        "; convert it with .long()");
}

void check_period(const char* op, int64_t period) {
  check(period >= 1 && period <= 2147483647, op,
        ": period must be from 1 to 2147483647 seconds, got ", period, "; a day is 86400");
}

void check_unit(const char* op, double unit) {
  check(unit > 0.0 && std::isfinite(unit) && std::isfinite(1.0 / unit), op,
        ": unit must be a positive number of seconds, got ", unit, "; an hour is 3600");
}

void check_id(const char* op, bool holds, int64_t id, int64_t table_rows, int64_t position) {
  if (holds) return;
  check(table_rows > 0, op, ": ids must be all masked out, for the table has no rows, got ", id,
        " at position ", position);
  check(false, op, ": ids must be from 0 to N - 1 = ", table_rows - 1, ", got ", id,
        " at position ", position, "; mask what is not there");
}

void check_k(const char* op, int64_t k) {
  check(k >= 0 && k <= 2048, op, ": k must be from 0 to 2048, got ", k,
        "; for more, score and sort in PyTorch");
}

void check_count(const char* op, const char* argument, int64_t count) {
  check(count <= 2147483647, op, ": ", argument, " must be at most 2147483647, got ", count);
}

Tensor padded_rows(const Tensor& tensor, ScalarType rounded_to) {
  const Tensor rows = as_contiguous(as_dtype(as_dtype(tensor, rounded_to), ScalarType::Float));
  const int64_t dim = rows.size(rows.dim() - 1);
  const int64_t padded = padded_dim(dim);
  if (padded == dim) return rows;
  const int64_t count = dim == 0 ? 0 : rows.numel() / dim;
  Tensor out = torch::stable::new_zeros(rows, {count, padded});
  const float* from = static_cast<const float*>(rows.const_data_ptr());
  float* to = static_cast<float*>(out.mutable_data_ptr());
  for (int64_t row = 0; row < count; ++row) {
    std::memcpy(to + row * padded, from + row * dim, static_cast<size_t>(dim) * sizeof(float));
  }
  return out;
}

IntArray int_array(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.scalar_type() == ScalarType::Long};
}

TimeMlpArguments::TimeMlpArguments(const char* op, const Tensor& w1_in, const Tensor& b1_in,
                                   const Tensor& w2_in, const Tensor& b2_in, double unit)
    : w1(as_contiguous(w1_in)),
      b1(as_contiguous(b1_in)),
      w2(as_contiguous(w2_in)),
      b2(as_contiguous(b2_in)) {
  check_unit(op, unit);
  const struct {
    const char* name;
    const Tensor& tensor;
  } parameters[] = {{"w1", w1}, {"b1", b1}, {"w2", w2}, {"b2", b2}};
  for (const auto& [name, tensor] : parameters) {
    check(tensor.scalar_type() == ScalarType::Float, op, ": mlp ", name, " must be float32, got ",
          dtype_of(tensor),
          tensor.scalar_type() == ScalarType::Double ? "; longclock.reference takes float64"
                                                     : "; convert it with .float()");
  }
  check(w1.dim() == 2 && w1.size(1) == kTimeFeatures && w1.size(0) >= 1 &&
            w1.size(0) <= kMaxTimeHidden,
        op, ": mlp w1 must have shape [h, 4] with h from 1 to ", kMaxTimeHidden, ", got ",
        shape_of(w1));
  const int64_t hidden = w1.size(0);
  check_shape(op, "mlp b1", b1, {{"h", hidden}}, "to match w1");
  check_shape(op, "mlp w2", w2, {{"h", hidden}}, "to match w1");
  check(b2.numel() == 1 && b2.dim() <= 1, op, ": mlp b2 must be a scalar, got shape ",
        shape_of(b2));
  mlp.w1 = static_cast<const float*>(w1.const_data_ptr());
  mlp.b1 = static_cast<const float*>(b1.const_data_ptr());
  mlp.w2 = static_cast<const float*>(w2.const_data_ptr());
  mlp.b2 = static_cast<const float*>(b2.const_data_ptr());
  mlp.hidden = static_cast<int>(hidden);
  mlp.unit = unit;
}

TimeMlpGradients::TimeMlpGradients(const TimeMlpArguments& arguments) {
  const auto empty_like = [](const Tensor& tensor) { return make_empty(tensor, tensor.sizes()); };
  tensors = {empty_like(arguments.w1), empty_like(arguments.b1), empty_like(arguments.w2),
             empty_like(arguments.b2)};
}

TimeMlpGradient TimeMlpGradients::view() const {
  const auto floats = [](const Tensor& tensor) {
    return static_cast<float*>(tensor.mutable_data_ptr());
  };
  const auto& [w1, b1, w2, b2] = tensors;
  return {floats(w1), floats(b1), floats(w2), floats(b2)};
}

}  // namespace longclock
