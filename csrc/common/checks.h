// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "common/tensors.h"
#include "longclock/common/dtype.h"
#include "longclock/time/time_term.h"

namespace longclock {

using OptionalTensor = std::optional<Tensor>;
using TensorList = std::vector<Tensor>;
using OptionalTensorList = std::optional<TensorList>;
using OptionalString = std::optional<std::string>;

using Ints = std::vector<int64_t>;
using Floats = std::vector<double>;

// Throws an error of the parts, one after the other: "op: argument must ..., got ...; remedy". Of
// the caller's making, it is a ValueError of the public function; std::runtime_error is for what
// is not.
template <class Error = std::invalid_argument, class... Parts>
void check(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream text;
  ((text << parts), ...);
  throw Error(text.str());
}

std::string bracketed(Sizes sizes);  // "[32, 10000]"

// Prints as its shape, bracketed; costs nothing where it is not printed.
struct ShapeOf {
  const Tensor& tensor;
};
inline ShapeOf shape_of(const Tensor& tensor) { return {tensor}; }
std::ostream& operator<<(std::ostream& out, ShapeOf shape);
bool same_shape(const Tensor& a, const Tensor& b);
const char* dtype_of(const Tensor& tensor);  // "float32"

struct Dim {
  const char* name;
  int64_t size;
};
// The shape must be `dims`; `why` ends the sentence: "to match keys".
void check_shape(const char* op, const char* argument, const Tensor& tensor,
                 std::initializer_list<Dim> dims, const char* why);

// Not None, which the dispatcher hands over as a tensor without anything in it.
void check_defined(const char* op, const char* argument, const Tensor& tensor);
// float32, float16 or bfloat16; float64 is pointed to the reference.
DType check_float(const char* op, const char* argument, const Tensor& tensor);
// The dtype of `rows`, or float32.
void check_matches(const char* op, const char* argument, const Tensor& tensor,
                   const char* rows_name, const Tensor& rows);
// int32 or int64.
void check_int(const char* op, const char* argument, const Tensor& tensor);
void check_period(const char* op, int64_t period);
void check_unit(const char* op, double unit, const char* argument = "unit");
// A row of a table, at `position` of ids, or of what else `argument` names.
void check_id(const char* op, bool holds, int64_t id, int64_t table_rows, int64_t position,
              const std::string& argument = "ids");
// Times are seconds: what is beyond 10^11 is a finer unit, whose clock time would mean nothing.
void check_second(const char* op, const char* argument, int64_t time, int64_t position);
// Of times [begin, end) those that count: all where `counts` is null.
void check_seconds(const char* op, const char* argument, const IntArray& times,
                   const uint8_t* counts, int64_t begin, int64_t end);
void check_seconds(const char* op, const char* argument, const Tensor& times);
// How many are selected: 0 to 2048.
void check_k(const char* op, int64_t k);
// How many there are to select from: what 31 bits index.
void check_count(const char* op, const char* argument, int64_t count);

// The width of padded_rows().
constexpr int64_t padded_dim(int64_t dim) { return (dim + 15) / 16 * 16; }
// Rows of 32-bit values, rounded to `rounded_to` first, each padded with zeros to a multiple of 16
// elements: what the kernels expect of queries.
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
