// SPDX-License-Identifier: Apache-2.0
// What calls require of values, whoever holds them, and what they say where it does not hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

#include "longclock/common/dtype.h"

namespace longclock {

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

// "[32, 10000]"
std::string bracketed(const int64_t* sizes, size_t count);

struct Dim {
  const char* name;
  int64_t size;
};
// A shape must be `dims`; `why` ends the sentence: "to match keys".
void check_shape(const char* op, const char* argument, const int64_t* sizes, size_t count,
                 std::initializer_list<Dim> dims, const char* why);

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
// How many are selected: 0 to 2048.
void check_k(const char* op, int64_t k);
// How many there are to select from: what 31 bits index.
void check_count(const char* op, const char* argument, int64_t count);

}  // namespace longclock
