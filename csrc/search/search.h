// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "longclock/calls/time_table_cache.h"
#include "longclock/search/search_work.h"
#include "search/features.h"
#include "search/layout.h"

namespace longclock {

// The arguments of every search. Dense: query [S, D] or [S, C, D], keys [S, M, D]; flat: query [Q,
// D], keys [T, D]. With ids [S, M] or [T], keys is the table [N, D].
#define LONGCLOCK_ROWS(X) X(Tensor, query) X(Tensor, keys) X(Tensor, key_time) X(Tensor, query_time)
#define LONGCLOCK_LAYOUT(X) X(OptionalTensor, ids) LONGCLOCK_SEQUENCES(X)
// A search by dot products and s(), and one by hashes, D words of 64 bits.
#define LONGCLOCK_SEARCH(X) \
  LONGCLOCK_ROWS(X)         \
  LONGCLOCK_MLP(X) LONGCLOCK_LAYOUT(X) X(double, scale) LONGCLOCK_CLOCKS(X)
#define LONGCLOCK_HASH_SEARCH(X) LONGCLOCK_ROWS(X) LONGCLOCK_LAYOUT(X)
// Keys in bytes, int8 or float8, have a scale a row, [S, M] or [T], or [N] of a table; and the
// query's elements are rounded to a dtype, none: they are not.
#define LONGCLOCK_IN_BYTES(X) X(OptionalTensor, key_scale) X(OptionalString, query_dtype)

// s() of a search, and what products are multiplied by.
struct SearchTimeTerm {
  LONGCLOCK_MLP(LONGCLOCK_FIELD)
  LONGCLOCK_CLOCKS(LONGCLOCK_FIELD)
  const double& scale;
};

struct SearchArguments {
  LONGCLOCK_ROWS(LONGCLOCK_FIELD)
  LONGCLOCK_LAYOUT(LONGCLOCK_FIELD)
  std::optional<SearchTimeTerm> time;  // none: hashes are compared
  const OptionalTensorList* features = nullptr;
  const OptionalTensorList* feature_ids = nullptr;
  const OptionalTensor* key_scale = nullptr;
  const OptionalString* query_dtype = nullptr;

  bool has_keys_in_bytes() const {
    return key_scale != nullptr && keys.defined() &&
           (keys.scalar_type() == ScalarType::Char ||
            keys.scalar_type() == ScalarType::Float8_e4m3fn);
  }
  LayoutArguments layout() const { return LONGCLOCK_LAYOUT_ARGUMENTS; }
};

#define LONGCLOCK_SEARCH_ARGUMENTS_OF(...)                                     \
  ::longclock::SearchArguments {                                               \
    LONGCLOCK_ROWS(LONGCLOCK_NAME)                                             \
    LONGCLOCK_LAYOUT(LONGCLOCK_NAME)::longclock::SearchTimeTerm{               \
        LONGCLOCK_MLP(LONGCLOCK_NAME) LONGCLOCK_CLOCKS(LONGCLOCK_NAME) scale}, \
        __VA_ARGS__                                                            \
  }
#define LONGCLOCK_SEARCH_ARGUMENTS LONGCLOCK_SEARCH_ARGUMENTS_OF(nullptr, nullptr)
#define LONGCLOCK_ANY_SEARCH_ARGUMENTS \
  LONGCLOCK_SEARCH_ARGUMENTS_OF(&features, &feature_ids, &key_scale, &query_dtype)
#define LONGCLOCK_HASH_SEARCH_ARGUMENTS                                          \
  ::longclock::SearchArguments {                                                 \
    LONGCLOCK_ROWS(LONGCLOCK_NAME) LONGCLOCK_LAYOUT(LONGCLOCK_NAME) std::nullopt \
  }

constexpr BehaviourWords kSearchWords = {"keys", "key_time", "D"};

// The arguments checked but for their values, and brought to one form. Holds what the pointers in
// it point to.
struct SearchInputs : LayoutInputs {
  std::optional<TimeTermArguments> mlp;  // none where hashes are compared
  Tensor keys;
  std::optional<Tensor> ids, key_scale;
  FeatureInputs features;
  std::vector<int64_t> widths;  // of a row, and of each feature

  SearchInputs(const char* op, const SearchArguments& arguments);

  // Of gsu_score's result, which has `count` elements where it is flat.
  std::vector<int64_t> score_shape(int64_t count) const {
    if (!dense()) return {count};
    std::vector<int64_t> shape = query_shape;
    shape.push_back(columns);
    return shape;
  }
  // Rows of a table, or none.
  int64_t table_rows() const { return ids ? keys.size(0) : 0; }

 private:
  void read_rows(const char* op, const SearchArguments& a);
  void read_dtypes(const char* op, const SearchArguments& a);
  void read_key_scale(const char* op, const SearchArguments& a);
  void check_query(const char* op, const SearchArguments& a) const;
};

// For the CPU: the values checked as well, and the work cut into tasks for PyTorch's threads.
class Search : public SearchInputs, public SearchWork {
 public:
  Search(const char* op, const SearchArguments& arguments);

  const std::vector<SearchTask>& cut(bool into_parts, int64_t tile);
  // Finds or builds the tables of behaviours.time where they pay.
  void tabulate();

  Tensor queries;  // padded_rows(), or scaled_queries(); of hashes as they are, contiguous
  int64_t query_stride;
  int64_t score_count;  // elements of gsu_score's output

 private:
  // Queries of keys in bytes, each with its scale behind it, see DotSearchParams.
  Tensor scaled_queries(const SearchArguments& a) const;

  TimeTables tables_;
};

}  // namespace longclock
