// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "common/clocks.h"
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
// Keys of int8 have a scale a row, [S, M] or [T], or [N] of a table; and the query's elements are
// rounded to a dtype, none: they are not.
#define LONGCLOCK_INT8(X) X(OptionalTensor, key_scale) X(OptionalString, query_dtype)

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

  bool has_int8_keys() const {
    return key_scale != nullptr && keys.defined() && keys.scalar_type() == ScalarType::Char;
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

// For the CPU: the values checked as well, and the work cut into tasks.
class Search : public SearchInputs {
 public:
  Search(const char* op, const SearchArguments& arguments);

  // Tasks that cover everything; long groups are cut into parts only where there are fewer tasks
  // than threads. Queries are cut at multiples of `tile`. Sets parts() to the largest number of
  // parts of a group.
  const std::vector<SearchTask>& cut(bool into_parts, int64_t tile);
  int64_t parts() const { return parts_; }

  std::vector<Group> groups;
  Tensor queries;  // padded_rows(), or scaled_queries(); of hashes as they are, contiguous
  int64_t query_stride;
  int64_t score_count;  // elements of gsu_score's output
  int64_t evaluations;  // behaviours of all groups

  // Of the times that a task reads. Just before it reads them: a pass of its own would fetch them
  // twice from memory.
  void check_times(const char* op, const SearchTask& task) const {
    const Group& group = groups[task.group];
    if (task.query_begin > group.query_begin) return;  // the group's first task checks them
    check_seconds(op, "key_time", behaviours.key_time, behaviours.mask, group.position + task.begin,
                  group.position + task.end);
  }
  // How many scores there are, one for every query and behaviour that it sees.
  int64_t scores() const;
  // The operations that they take, in units of about one element read.
  int64_t work() const;
  // Finds or builds the tables of behaviours.time where they pay.
  void tabulate();

 private:
  // Queries of int8 keys, each with its scale behind it, see DotSearchParams.
  Tensor scaled_queries(const SearchArguments& a) const;
  void check_ids(const char* op, const IntArray& ids, int64_t table_rows,
                 const std::string& argument) const;

  std::vector<SearchTask> tasks_;
  TimeTables tables_;
  int64_t parts_ = 1;
};

}  // namespace longclock
