// SPDX-License-Identifier: Apache-2.0
#include "search/features.h"

namespace longclock {

std::string table_name(const BehaviourWords& words, size_t f) {
  return std::string(words.rows) + "[" + std::to_string(f + 1) + "]";
}
std::string ids_name(size_t f) { return "ids[" + std::to_string(f + 1) + "]"; }

int64_t feature_columns(const char* op, const BehaviourWords& words,
                        const OptionalTensorList& given) {
  const TensorList& tables = all_of(given);
  int64_t columns = 0;
  for (size_t f = 0; f < tables.size(); ++f) {
    const std::string name = table_name(words, f);
    check_defined(op, name.c_str(), tables[f]);
    check(tables[f].dim() == 2, op, ": ", name, " must have shape [N, ", words.width,
          "] with ids, got ", shape_of(tables[f]));
    columns += tables[f].size(1);
  }
  return columns;
}

void FeatureInputs::read(const char* op, const BehaviourWords& words, const Tensor& rows,
                         const Tensor& time, const OptionalTensorList& given_tables,
                         const OptionalTensorList& given_ids, Behaviours* behaviours) {
  const TensorList &tables_in = all_of(given_tables), &ids_in = all_of(given_ids);
  const size_t count = tables_in.size();
  check(count <= kMaxFeatures && ids_in.size() == count, op, ": ", words.rows, " must be at most ",
        kMaxFeatures + 1, " tables, with ids for each, got ", count + 1, " tables and ids for ",
        ids_in.size() + 1);
  const int64_t positions = time.numel();
  for (size_t f = 0; f < count; ++f) {
    const Tensor &table = tables_in[f], &of_table = ids_in[f];
    const std::string name = table_name(words, f);
    check(table.scalar_type() == rows.scalar_type(), op, ": ", name, " must be ", dtype_of(rows),
          " to match ", words.rows, ", got ", dtype_of(table), "; convert it with .to()");
    check_int(op, ids_name(f).c_str(), of_table);
    const bool own = of_table.numel() == 0;  // a row a behaviour, where there are any
    check(!own || positions == 0 || table.size(0) == positions, op, ": ", name,
          " must have a row for every behaviour, where it has no ids, got ", shape_of(table));
    check(own || same_shape(of_table, time), op, ": ", ids_name(f), " must have ", words.time,
          "'s shape, got ", shape_of(of_table));
    tables.push_back(unit_stride(table));
    ids.push_back(as_contiguous(of_table));
    behaviours->features[f] = {tables[f].const_data_ptr(), tables[f].stride(0), table.size(1),
                               own ? IntArray{} : int_array(ids[f]), table.size(0)};
    behaviours->feature_count = static_cast<int>(f) + 1;
  }
}

}  // namespace longclock
