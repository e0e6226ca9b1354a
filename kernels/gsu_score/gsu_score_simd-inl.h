// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/search/behaviour_block-inl.h"
#include "longclock/search/span_products-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Scores of a block into their place: -inf where a behaviour is not valid.
template <class Block>
void write_block(const GsuScoreParams& p, const Block& block, float* scores, float* to) {
  if (!block.all_valid) {
    for (int64_t i = 0; i < block.n; ++i) {
      if (block.valid[i] == 0) scores[i] = -__builtin_inff();
    }
  }
  if (p.stream) {
    stream(scores, block.n, to);
  } else {
    for (int64_t i = 0; i < block.n; ++i) to[i] = scores[i];
  }
}

template <class T>
void score(const GsuScoreParams& p, const SearchTask& task) {
  const Group& group = p.groups[task.group];
  const int64_t count = task.query_end - task.query_begin;
  const float* queries = p.queries + task.query_begin * p.query_stride;
  float* out =
      p.scores + group.out_begin + (task.query_begin - group.query_begin) * group.out_stride;
  Scratch scratch;
  if (are_few(group)) {
    SpanProducts<T> products(p.behaviours, queries, p.query_stride, count, &scratch);
    products.for_each_block(
        group, task.begin, task.end,
        [&](StreamBlock<T>& block) { read_s(p.behaviours, 0, block.n, &block); },
        [&](StreamBlock<T>& block, float* scores, int64_t begin) {
          for (int64_t q = 0; q < count; ++q, scores += products.product_stride()) {
            const float scale = query_scale<T>(p.behaviours, queries + q * p.query_stride, p.scale);
            if (block.any_valid) add_s(scale, block.s, block.n, scores);
            write_block(p, block, scores, out + q * group.out_stride + begin);
          }
        });
  } else {
    BlockScorer<T> scorer(p.behaviours, p.scale, queries, p.query_stride, count, group.length,
                          &scratch);
    float* scores = scratch.take<float>(count * kScoreStride);
    for (int64_t at = task.begin; at < task.end; at += kBehaviourBlock) {
      const int64_t n = min_of(kBehaviourBlock, task.end - at);
      const BehaviourBlock<T>& block = scorer.score(group, at, n, scores, kScoreStride);
      for (int64_t q = 0; q < count; ++q) {
        write_block(p, block, scores + q * kScoreStride, out + q * group.out_stride + at);
      }
    }
  }
  if (p.stream) end_stream();
  for (int64_t q = 0; task.part == 0 && q < count; ++q) {
    for (int64_t i = group.length; i < group.out_stride; ++i) {
      out[q * group.out_stride + i] = -__builtin_inff();
    }
  }
}

// The gradient of up to kTaskQueries queries over a block of behaviours, times scale, exactly 0
// where a behaviour is not valid.
class GradBlock {
 public:
  // For up to `most` queries at a time, kTaskQueries at most.
  GradBlock(int64_t most, Scratch* scratch)
      : values_(scratch->take<float>(min_of(most, kTaskQueries) * kScoreStride)) {}

  // A row of kScoreStride values a query.
  template <class T>
  const float* read(const GsuScoreBackwardParams& p, const Group& g, const BehaviourBlock<T>& block,
                    int64_t query_begin, int64_t count, int64_t begin) {
    for (int64_t q = 0; q < count; ++q) {
      const float* from =
          p.grad + g.out_begin + (query_begin - g.query_begin + q) * g.out_stride + begin;
      float* to = values_ + q * kScoreStride;
      for (int64_t i = 0; i < block.n; ++i) to[i] = p.scale * from[i];
      if (block.all_valid) continue;
      for (int64_t i = 0; i < block.n; ++i) to[i] = block.valid[i] != 0 ? to[i] : 0.0f;
    }
    return values_;
  }

 private:
  float* values_;
};

// query_grad = scale * sum over behaviours of grad * key: within a block, then block by block.
template <class T>
void query_grad(const GsuScoreBackwardParams& p, const SearchTask& task) {
  const Behaviours& b = p.behaviours;
  const Group& group = p.groups[task.group];
  const int64_t count = task.query_end - task.query_begin;
  const int64_t padded = round_up(b.dim, kLanes);
  Scratch scratch;
  GradBlock grads(count, &scratch);
  auto* block = scratch.take<BehaviourBlock<T>>(1);
  auto* rows = scratch.take<const float*>(kBehaviourBlock);
  float* copies = scratch.take<float>(kBehaviourBlock * padded);
  float* nothing = scratch.take<float>(padded);
  float* part = scratch.take<float>(count * padded);
  float* sum = scratch.take<float>(count * padded);
  for (int64_t i = 0; i < padded; ++i) nothing[i] = 0.0f;
  for (int64_t i = 0; i < count * padded; ++i) sum[i] = 0.0f;
  for (int64_t at = 0; at < group.length; at += kBehaviourBlock) {
    const int64_t n = min_of(kBehaviourBlock, group.length - at);
    read_times(b, group, at, n, block);
    find_rows(b, group, at, n, block);
    if (!block->any_valid) continue;
    widen_rows(block->rows, n, b.dim, copies, rows);
    if (!block->all_valid) {
      for (int64_t i = 0; i < n; ++i) rows[i] = block->valid[i] != 0 ? rows[i] : nothing;
    }
    const float* weights = grads.read(p, group, *block, task.query_begin, count, at);
    weighted_rows(weights, kScoreStride, 1, count, rows, n, padded, false, part, padded);
    for (int64_t i = 0; i < count * padded; ++i) sum[i] += part[i];
  }
  for (int64_t q = 0; q < count; ++q) {
    narrow_row(sum + q * padded, b.dim, p.query_grad + (task.query_begin + q) * b.dim);
  }
}

// Calls f(begin, end) for every run of valid behaviours: what is not gets no product, not
// even 0 times a NaN.
template <class T, class F>
void for_each_run(const BehaviourBlock<T>& block, const F& f) {
  if (block.all_valid) return f(0, block.n);
  for (int64_t i = 0; i < block.n; ++i) {
    if (block.valid[i] == 0) continue;
    const int64_t begin = i;
    while (i < block.n && block.valid[i] != 0) ++i;
    f(begin, i);
  }
}

// key_grad = scale * sum over queries of grad * query, for one block of positions after another:
// groups in order (windows overlap), queries in order.
template <class T>
void key_grad(const GsuScoreBackwardParams& p, int64_t part) {
  const Behaviours& b = p.behaviours;
  const int64_t padded = round_up(b.dim, kLanes);
  const int64_t end = min_of(p.positions, (part + 1) * kKeyGradPart);
  Scratch scratch;
  GradBlock grads(p.most_queries, &scratch);
  auto* block = scratch.take<BehaviourBlock<T>>(1);
  const float* queries[kTaskQueries];
  float* sum = scratch.take<float>(kBehaviourBlock * padded);
  for (int64_t at = part * kKeyGradPart; at < end; at += kBehaviourBlock) {
    const int64_t n = min_of(kBehaviourBlock, end - at);
    for (int64_t i = 0; i < n * padded; ++i) sum[i] = 0.0f;
    for (int64_t i = p.part_begin[part]; i < p.part_begin[part + 1]; ++i) {
      const Group& g = p.groups[p.part_groups[i]];
      const int64_t first = at > g.position ? at : g.position;
      const int64_t last = min_of(at + n, g.position + g.length);
      if (first >= last) continue;
      read_times(b, g, first - g.position, last - first, block);
      for (int64_t q = g.query_begin; q < g.query_end; q += kTaskQueries) {
        const int64_t count = min_of(kTaskQueries, g.query_end - q);
        for (int64_t j = 0; j < count; ++j) queries[j] = p.queries + (q + j) * p.query_stride;
        const float* weights = grads.read(p, g, *block, q, count, first - g.position);
        for_each_run(*block, [&](int64_t begin, int64_t end) {
          add_weighted_rows(weights + begin, 1, kScoreStride, end - begin, queries, count, padded,
                            sum + (first - at + begin) * padded, padded);
        });
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      narrow_row(sum + i * padded, b.dim, static_cast<T*>(p.key_grad) + (at + i) * b.dim);
    }
  }
}

// The same for table rows [begin, end): all behaviours in order, those of other rows passed over.
template <class T>
void table_grad(const GsuScoreBackwardParams& p, int64_t begin, int64_t end) {
  const Behaviours& b = p.behaviours;
  const int64_t padded = round_up(b.dim, kLanes);
  Scratch scratch;
  GradBlock grads(p.most_queries, &scratch);
  auto* block = scratch.take<BehaviourBlock<T>>(1);
  const float* queries[kTaskQueries];
  // 32-bit rows of whole vectors are summed where they will lie.
  const bool in_place = sizeof(T) == 4 && padded == b.dim;
  float* sum = in_place ? static_cast<float*>(p.key_grad) + begin * padded
                        : scratch.take<float>((end - begin) * padded);
  for (int64_t i = 0; !in_place && i < (end - begin) * padded; ++i) sum[i] = 0.0f;
  for (int64_t index = 0; index < p.group_count; ++index) {
    const Group& g = p.groups[index];
    for (int64_t at = 0; at < g.length; at += kBehaviourBlock) {
      const int64_t n = min_of(kBehaviourBlock, g.length - at);
      read_times(b, g, at, n, block);
      for (int64_t q = g.query_begin; q < g.query_end; q += kTaskQueries) {
        const int64_t count = min_of(kTaskQueries, g.query_end - q);
        for (int64_t i = 0; i < count; ++i) queries[i] = p.queries + (q + i) * p.query_stride;
        const float* weights = grads.read(p, g, *block, q, count, at);
        for (int64_t i = 0; i < n; ++i) {
          if (!block->all_valid && block->valid[i] == 0) continue;
          const int64_t row = b.ids[g.position + at + i];
          if (row < begin || row >= end) continue;
          add_weighted_rows(weights + i, 1, kScoreStride, 1, queries, count, padded,
                            sum + (row - begin) * padded, padded);
        }
      }
    }
  }
  for (int64_t row = begin; !in_place && row < end; ++row) {
    narrow_row(sum + (row - begin) * padded, b.dim, static_cast<T*>(p.key_grad) + row * b.dim);
  }
}

}  // namespace

void gsu_score(const GsuScoreParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    with_elements(p.behaviours, [&](auto element) {
      score<typename AsFloats<decltype(element)>::Type>(p, p.tasks[task]);
    });
  }
}

void gsu_score_query_grad(const GsuScoreBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, query_grad<T>(p, p.tasks[task]));
  }
}

void gsu_score_key_grad(const GsuScoreBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t part = begin; part < end; ++part) {
    LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, key_grad<T>(p, part));
  }
}

void gsu_score_table_grad(const GsuScoreBackwardParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, table_grad<T>(p, begin, end));
}

void gsu_score_s_grad(const GsuScoreBackwardParams& p, int64_t begin, int64_t end) {
  Scratch scratch;
  auto* block = scratch.take<BehaviourBlock<float>>(1);
  for (int64_t index = begin; index < end; ++index) {
    const Group& g = p.groups[index];
    // Of times that no query asks about: their features may be infinite, and 0 of inf is NaN.
    const bool asked = g.query_end > g.query_begin;
    for (int64_t at = 0; at < g.length; at += kBehaviourBlock) {
      const int64_t n = min_of(kBehaviourBlock, g.length - at);
      read_times(p.behaviours, g, at, n, block);
      float* sum = p.s_grad + p.s_begin[index] + at;
      for (int c = 0; c < p.behaviours.time.clocks; ++c) {
        int32_t* delta = p.s_delta + c * p.s_count + p.s_begin[index] + at;
        for (int64_t i = 0; i < n; ++i) delta[i] = asked ? block->delta[c][i] : 0;
      }
      for (int64_t i = 0; i < n; ++i) sum[i] = 0.0f;
      for (int64_t q = 0; q < g.query_end - g.query_begin; ++q) {
        const float* grad = p.grad + g.out_begin + q * g.out_stride + at;
        for (int64_t i = 0; i < n; ++i) sum[i] += grad[i];
      }
      if (block->all_valid) continue;
      for (int64_t i = 0; i < n; ++i) sum[i] = block->valid[i] != 0 ? sum[i] : 0.0f;
    }
  }
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_BF16_ENTRY(gsu_score, GsuScoreParams)
LONGCLOCK_CPU_BF16_ENTRY(gsu_score_query_grad, GsuScoreBackwardParams)
LONGCLOCK_CPU_BF16_ENTRY(gsu_score_key_grad, GsuScoreBackwardParams)
LONGCLOCK_CPU_BF16_ENTRY(gsu_score_table_grad, GsuScoreBackwardParams)
LONGCLOCK_CPU_BF16_ENTRY(gsu_score_s_grad, GsuScoreBackwardParams)
