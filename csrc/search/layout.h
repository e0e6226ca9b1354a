// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "common/argument_list.h"
#include "common/checks.h"
#include "longclock/search/device_search.h"

namespace longclock {

// Which behaviours each query sees. Dense: key_time [S, M], query_time [S], lengths [S]. Ragged:
// key_time [T], query_time [S], offsets [S + 1]. Windows: key_time [T], query_time, starts and ends
// [S]. In the flat layouts query_offsets [S + 1] tells which queries look at each sequence or
// window; without it there is one query a sequence.
#define LONGCLOCK_SEQUENCES(X)     \
  X(OptionalTensor, lengths)       \
  X(OptionalTensor, offsets)       \
  X(OptionalTensor, query_offsets) \
  X(OptionalTensor, starts) X(OptionalTensor, ends) X(OptionalTensor, mask) X(bool, exclude_future)

struct LayoutArguments {
  const Tensor& key_time;
  const Tensor& query_time;
  LONGCLOCK_SEQUENCES(LONGCLOCK_FIELD)
};

#define LONGCLOCK_LAYOUT_ARGUMENTS \
  ::longclock::LayoutArguments { key_time, query_time, LONGCLOCK_SEQUENCES(LONGCLOCK_NAME) }

// A layout, checked but for its values, and brought to one form. Holds what the pointers in it
// point to.
struct LayoutInputs {
  Behaviours behaviours{};  // keys, ids and s() are the search's
  SearchLayout layout;
  int64_t sequences;                 // S
  int64_t candidates;                // queries a sequence: dense
  int64_t columns;                   // M: dense
  int64_t positions;                 // S * M, or T
  int64_t query_count;               // Q, or S * C
  std::vector<int64_t> query_shape;  // [S], [S, C] or [Q]
  int64_t sequence_stride = 0;  // elements from a sequence's keys to the next's: dense, without ids
  Tensor key_time, query_time;
  std::optional<Tensor> lengths, offsets, query_offsets, starts, ends, mask;

  LayoutInputs(const LayoutInputs&) = delete;
  LayoutInputs& operator=(const LayoutInputs&) = delete;

  bool dense() const { return layout == SearchLayout::kDense; }
  // The queries that look at each sequence or window. For the CPU: the values are checked as well.
  std::vector<Group> group_queries(const char* op) const;

 protected:
  // The rows that the layout is of, where it has rows of its own.
  struct Rows {
    int64_t sequences, columns;  // dense
    int64_t positions;           // flat
  };

  // Which layout it is. Its shapes are read_layout()'s, as a search checks its rows before them.
  LayoutInputs(const char* op, const LayoutArguments& arguments);
  // `name` is the argument that has a place for every query, before its last dimension.
  void read_layout(const char* op, const LayoutArguments& a, const char* name,
                   const Tensor& queries, const std::optional<Rows>& rows);

 private:
  void read_dense(const char* op, const LayoutArguments& a, const char* name, const Tensor& queries,
                  const std::optional<Rows>& rows);
  void read_flat(const char* op, const LayoutArguments& a, const char* name,
                 const std::optional<Rows>& rows);
};

}  // namespace longclock
