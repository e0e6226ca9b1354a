// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "common/tensors.h"
#include "longclock/common/dtype.h"
#include "longclock/common/value_checks.h"
#include "longclock/search/query_rows.h"
#include "longclock/time/time_term.h"

namespace longclock {

using OptionalTensor = std::optional<Tensor>;
using TensorList = std::vector<Tensor>;
using OptionalTensorList = std::optional<TensorList>;
using OptionalString = std::optional<std::string>;

using Ints = std::vector<int64_t>;
using Floats = std::vector<double>;

inline std::string bracketed(Sizes sizes) { return bracketed(sizes.data(), sizes.size()); }

// Prints as its shape, bracketed; costs nothing where it is not printed.
struct ShapeOf {
  const Tensor& tensor;
};
inline ShapeOf shape_of(const Tensor& tensor) { return {tensor}; }
std::ostream& operator<<(std::ostream& out, ShapeOf shape);
bool same_shape(const Tensor& a, const Tensor& b);
const char* dtype_of(const Tensor& tensor);  // "float32"

// The shape must be `dims`; `why` ends the sentence: "to match keys".
void check_shape(const char* op, const char* argument, const Tensor& tensor,
                 std::initializer_list<Dim> dims, const char* why);

// Not None, which the dispatcher hands over as a tensor without anything in it.
void check_defined(const char* op, const char* argument, const Tensor& tensor);
// float32, float16 or bfloat16; float64 is pointed to the reference.
DType check_float(const char* op, const char* argument, const Tensor& tensor);
// Of float32, float16 or bfloat16.
DType float_type(ScalarType type);
// The dtype of `rows`, or float32.
void check_matches(const char* op, const char* argument, const Tensor& tensor,
                   const char* rows_name, const Tensor& rows);
// int32 or int64.
void check_int(const char* op, const char* argument, const Tensor& tensor);
// That all times are seconds.
void check_seconds(const char* op, const char* argument, const Tensor& times);

// Rows of floats as the kernels take queries: rounded to `rounded_to`, in fp32, and padded.
Tensor padded_rows(const Tensor& tensor, ScalarType rounded_to);
// Rows of several widths side by side, each of which is padded.
Tensor padded_rows(const Tensor& tensor, ScalarType rounded_to, Sizes widths);
// A contiguous tensor as the kernels read integers. The tensor must outlive the array.
IntArray int_array(const Tensor& tensor);

// The clocks and the parameters of s(), checked and contiguous. Of one clock w1 is [h, 4], b1 and
// w2 [h], and b2 a scalar; of more, each has a first dimension of its own for the clocks.
struct TimeTermArguments {
  Tensor w1, b1, w2, b2;
  TimeTerm time{};  // without tables
  TimeTermArguments(const char* op, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                    const Tensor& b2, const Ints& periods, const Floats& units);
  // Of a difference of times that is there already, on a circle or elapsed.
  TimeTermArguments(const char* op, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                    const Tensor& b2, double unit, bool elapsed);

 private:
  void read(const char* op);
};

// Tensors for its gradients.
struct TimeMlpGradients {
  std::tuple<Tensor, Tensor, Tensor, Tensor> tensors;  // w1, b1, w2, b2
  explicit TimeMlpGradients(const TimeTermArguments& arguments);
  TimeMlpGradient view(int clock, int hidden) const;
};

}  // namespace longclock
