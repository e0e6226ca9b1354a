// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/cpu_entry-inl.h"
#include "longclock/esu_attention/esu_attention_block-inl.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// The largest of whole vectors of values and of `least`; NaN is passed over.
inline float largest(const float* values, int64_t n, float least) {
  Vf top = splat(least);
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vf v = load(values + i);
    top = v > top ? v : top;
  }
  for (int lane = 0; lane < kLanes; ++lane) least = top[lane] > least ? top[lane] : least;
  return least;
}

// dot + the product of the four time features with their gradient.
template <class F>
inline F add_time_product(F dot, const F* grad, F x, F root, F square, F log) {
  dot = fma(grad[0], x, dot);
  dot = fma(grad[1], root, dot);
  dot = fma(grad[2], square, dot);
  return fma(grad[3], log, dot);
}

// Weighted sums of a head so far, lane by lane: of 1, and of a clock's time features.
struct TimeSums {
  Vf x, root, square, log;

  // sums * fade + the block's, weights in whole vectors.
  void add(const float* weights, const TimeFeatureBlock& f, int64_t n, float fade) {
    TimeSums block = {};
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vf weight = load(weights + i);
      block.x = fma(weight, load(f.x + i), block.x);
      block.root = fma(weight, load(f.root + i), block.root);
      block.square = fma(weight, load(f.square + i), block.square);
      block.log = fma(weight, load(f.log + i), block.log);
    }
    const Vf kept = splat(fade);
    x = fma(x, kept, block.x);
    root = fma(root, kept, block.root);
    square = fma(square, kept, block.square);
    log = fma(log, kept, block.log);
  }
};

inline void add_weights(const float* weights, int64_t n, float fade, Vf* one) {
  Vf block = {};
  for (int64_t i = 0; i < n; i += kLanes) block = block + load(weights + i);
  *one = fma(*one, splat(fade), block);
}

// Online softmax: a running maximum, sum and weighted sum a head; a block is summed on its own and
// then added, so that a long row does not gather the rounding of one long chain.
template <class T>
void attend(const EsuAttentionParams& p, int64_t begin, int64_t end) {
  const int64_t dim = p.dim, heads = p.heads;
  const int clocks = p.behaviours.time.clocks;
  Scratch scratch;
  EsuBlock<T> block(p, 0, &scratch);
  const int64_t padded = block.padded();
  float* weights = scratch.take<float>(heads * kEsuBlock);
  float* part = scratch.take<float>(heads * padded);
  float* total = scratch.take<float>(heads * padded);
  auto* one = scratch.take<Vf>(heads);
  auto* time = scratch.take<TimeSums>(heads * clocks);
  float* highest = scratch.take<float>(heads);
  float* fade = scratch.take<float>(heads);
  for (int64_t q = begin; q < end; ++q) {
    for (int64_t i = 0; i < heads * padded; ++i) total[i] = 0.0f;
    for (int64_t h = 0; h < heads; ++h) one[h] = Vf{};
    for (int64_t i = 0; i < heads * clocks; ++i) time[i] = TimeSums{};
    for (int64_t h = 0; h < heads; ++h) highest[h] = -__builtin_inff();
    block.start(q, nullptr);
    bool any = false;
    for (int64_t at = 0; at < p.k; at += kEsuBlock) {
      const int64_t count = block.read(at, min_of(kEsuBlock, p.k - at));
      if (count == 0) continue;
      any = true;
      const int64_t whole = round_up(count, kLanes);
      for (int64_t h = 0; h < heads; ++h) {
        const float* alpha = block.alpha(h);
        float* weight = weights + h * kEsuBlock;
        const float top = largest(alpha, whole, highest[h]);
        const float base = top == -__builtin_inff() ? 0.0f : top;  // all -inf so far: weights of 0
        fade[h] = exp_negative(highest[h] - base);
        highest[h] = top;
        for (int64_t i = 0; i < whole; ++i) weight[i] = exp_negative(alpha[i] - base);
        add_weights(weight, whole, fade[h], one + h);
        for (int c = 0; c < clocks; ++c) {
          time[h * clocks + c].add(weight, block.features(c), whole, fade[h]);
        }
      }
      weighted_rows(weights, kEsuBlock, 1, heads, block.rows(), count, padded, false, part, padded);
      for (int64_t h = 0; h < heads; ++h) {
        const float *from = part + h * padded, kept = fade[h];
        float* to = total + h * padded;
        for (int64_t i = 0; i < padded; ++i) to[i] = fma(to[i], kept, from[i]);
      }
    }
    for (int64_t h = 0; h < heads; ++h) {
      float* out = p.context + (q * heads + h) * p.width;
      const float* from = total + h * padded;
      Vf ones[kLanes] = {one[h]};
      const float sum = reduce_rows(ones)[0];
      // Valid behaviours whose alphas are all -inf give 0 / 0, as torch's softmax does.
      const float divisor = any ? sum : 1.0f;
      for (int64_t i = 0; i < dim; ++i) out[i] = from[i] / divisor;
      for (int c = 0; c < clocks; ++c) {
        const TimeSums& lanes = time[h * clocks + c];
        Vf rows[kLanes] = {lanes.x, lanes.root, lanes.square, lanes.log};
        const Vf features = reduce_rows(rows);
        float* to = out + dim + c * kTimeFeatures;
        for (int64_t i = 0; i < kTimeFeatures; ++i) to[i] = features[i] / divisor;
      }
      float* softmax = p.softmax + (q * heads + h) * 2;
      softmax[0] = highest[h];
      softmax[1] = any ? __builtin_logf(sum) : 0.0f;
    }
  }
}

// Rounds a row to T and stores it: past the caches where `past` and the row is whole lines.
template <class T>
inline void write_row(const float* from, int64_t dim, bool past, T* to) {
  if constexpr (sizeof(T) == 4) {
    if (past && dim % 16 == 0) return stream(from, dim, to);
  }
  narrow_row(from, dim, to);
}

// What the backward of a query holds, side by side over heads.
struct QueryGrad {
  float* grad;     // [n, padded], of the context's columns
  float* share;    // [n], grad_i . context_i
  float* weights;  // [2 n, kEsuBlock]: ds, then p
  float* s_grad;   // [kEsuBlock]
};

// The query's gradient, and its products with the context. Summed as a behaviour's product with the
// gradient is, so that their difference is exactly 0 where one behaviour has all the weight.
inline void read_grad(const EsuAttentionBackwardParams& p, int64_t q, int64_t padded,
                      const QueryGrad& out) {
  const int64_t dim = p.forward.dim, wide = p.forward.width;
  for (int64_t h = 0; h < p.forward.heads; ++h) {
    const float* from = p.grad + (q * p.forward.heads + h) * wide;
    const float* context = p.forward.context + (q * p.forward.heads + h) * wide;
    float* grad = out.grad + h * padded;
    for (int64_t i = 0; i < padded; ++i) grad[i] = i < dim ? from[i] : 0.0f;
    float product = dot(grad, context, dim);
    for (int64_t i = dim; i < wide; i += kTimeFeatures) {
      const float* time = context + i;
      product = add_time_product(product, from + i, time[0], time[1], time[2], time[3]);
    }
    out.share[h] = product;
  }
}

// ds and p of the block's behaviours, whole vectors of them, and the gradient of their s.
template <class T>
void weigh(const EsuAttentionBackwardParams& p, int64_t q, const EsuBlock<T>& block, int64_t whole,
           const QueryGrad& out) {
  const int64_t heads = p.forward.heads, dim = p.forward.dim;
  const int clocks = p.forward.behaviours.time.clocks;
  for (int64_t i = 0; i < whole; ++i) out.s_grad[i] = 0.0f;
  for (int64_t h = 0; h < heads; ++h) {
    const float *alpha = block.alpha(h), *g = block.product(h);
    const float* time_grad = p.grad + (q * heads + h) * p.forward.width + dim;
    const float* softmax = p.forward.softmax + (q * heads + h) * 2;
    float* ds = out.weights + h * kEsuBlock;
    float* weight = out.weights + (heads + h) * kEsuBlock;
    // In two steps: largest + log(sum) would lose the logarithm's digits to a large alpha.
    const float top = softmax[0], log_sum = softmax[1];
    for (int64_t i = 0; i < whole; ++i) weight[i] = exp_negative((alpha[i] - top) - log_sum);
    for (int64_t i = 0; i < whole; i += kLanes) {
      Vf gain = load(g + i);
      for (int c = 0; c < clocks; ++c) {
        const TimeFeatureBlock& phi = block.features(c);
        const float* from = time_grad + c * kTimeFeatures;
        const Vf time[] = {splat(from[0]), splat(from[1]), splat(from[2]), splat(from[3])};
        gain = add_time_product(gain, time, load(phi.x + i), load(phi.root + i),
                                load(phi.square + i), load(phi.log + i));
      }
      const Vf change = load(weight + i) * (gain - splat(out.share[h]));
      store(change, ds + i);
      store(load(out.s_grad + i) + change, out.s_grad + i);
    }
  }
}

// Zeros for behaviours [at, at + n) of query q, of which not all are valid.
template <class T>
void clear_grads(const EsuAttentionBackwardParams& p, int64_t q, int64_t at, int64_t n) {
  const int64_t first = q * p.forward.k + at, dim = p.forward.dim;
  if (p.z_grad != nullptr) {
    T* z_grad = static_cast<T*>(p.z_grad);
    for (int64_t i = first * dim; i < (first + n) * dim; ++i) z_grad[i] = T{};
  }
  if (p.s_grad != nullptr) {
    for (int64_t i = first; i < first + n; ++i) p.s_grad[i] = 0.0f;
    for (int c = 0; c < p.forward.behaviours.time.clocks; ++c) {
      for (int64_t i = first; i < first + n; ++i) p.s_delta[c * p.pairs + i] = 0;
    }
  }
}

// With g_ik = grad_i . [z_k ; phi_k]:  ds_ik = p_ik (g_ik - grad_i . context_i),
// dz_k = sum over i of ds_ik u_i + p_ik grad_i,  du_i = sum over k of ds_ik z_k.
template <class T>
void attend_backward(const EsuAttentionBackwardParams& p, int64_t begin, int64_t end) {
  const EsuAttentionParams& f = p.forward;
  const int64_t dim = f.dim, heads = f.heads;
  constexpr int64_t kGradRows = 24;  // of z, whose gradient is found and written together
  Scratch scratch;
  EsuBlock<T> block(f, heads, &scratch);
  const int64_t padded = block.padded();
  const QueryGrad query = {scratch.take<float>(heads * padded), scratch.take<float>(heads),
                           scratch.take<float>(2 * heads * kEsuBlock),
                           scratch.take<float>(kEsuBlock)};
  float* z_grad = scratch.take<float>(kGradRows * padded);
  float* part = scratch.take<float>(heads * padded);
  float* u_grad = scratch.take<float>(heads * padded);
  for (int64_t q = begin; q < end; ++q) {
    read_grad(p, q, padded, query);
    block.start(q, query.grad);
    for (int64_t i = 0; i < heads * padded; ++i) u_grad[i] = 0.0f;
    T* z_out = p.z_grad == nullptr ? nullptr : static_cast<T*>(p.z_grad) + q * f.k * dim;
    for (int64_t at = 0; at < f.k; at += kEsuBlock) {
      const int64_t n = min_of(kEsuBlock, f.k - at);
      const int64_t count = block.read(at, n);
      if (count < n) clear_grads<T>(p, q, at, n);
      if (count == 0) continue;
      weigh(p, q, block, round_up(count, kLanes), query);
      for (int64_t i = 0; p.s_grad != nullptr && i < count; ++i) {
        p.s_grad[q * f.k + block.index()[i]] = query.s_grad[i];
        for (int c = 0; c < f.behaviours.time.clocks; ++c) {
          p.s_delta[c * p.pairs + q * f.k + block.index()[i]] = block.delta(c)[i];
        }
      }
      for (int64_t i = 0; z_out != nullptr && i < count; i += kGradRows) {
        const int64_t some = min_of(kGradRows, count - i);
        weighted_rows(query.weights + i, 1, kEsuBlock, some, block.vectors(), 2 * heads, padded,
                      false, z_grad, padded);
        for (int64_t r = 0; r < some; ++r) {
          write_row(z_grad + r * padded, dim, p.stream, z_out + block.index()[i + r] * dim);
        }
      }
      if (p.u_grad == nullptr) continue;
      weighted_rows(query.weights, kEsuBlock, 1, heads, block.rows(), count, padded, false, part,
                    padded);
      for (int64_t i = 0; i < heads * padded; ++i) u_grad[i] += part[i];
    }
    for (int64_t h = 0; p.u_grad != nullptr && h < heads; ++h) {
      narrow_row(u_grad + h * padded, dim, p.u_grad + (q * heads + h) * dim);
    }
  }
  if (p.stream) end_stream();
}

// Adds in order of positions, in T as nn.Embedding does; rows outside [begin, end) are passed over.
template <class T>
void table_grad(const EsuTableGradParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kPrefetchRows = 32;
  const int64_t dim = p.dim, bytes = dim * static_cast<int64_t>(sizeof(T));
  T* table = static_cast<T*>(p.table_grad);
  const auto row_of = [&](int64_t at) -> T* {
    if (at >= p.count) return nullptr;
    const bool valid = p.valid == nullptr || p.valid[at] != 0;
    const int64_t from = p.positions == nullptr ? at : p.positions[at];
    const int64_t id = valid && from >= 0 ? p.ids[from] : -1;
    return begin <= id && id < end ? table + id * dim : nullptr;
  };
  for (int64_t at = 0; at < p.count; ++at) {
    if (const T* later = row_of(at + kPrefetchRows)) prefetch_row(later, bytes);
    T* to = row_of(at);
    if (to == nullptr) continue;
    const T* from = static_cast<const T*>(p.z_grad) + at * p.z_row_stride;
    for (int64_t i = 0; i < dim; ++i) from_float(to_float(to[i]) + to_float(from[i]), to + i);
  }
}

}  // namespace

void esu_attention(const EsuAttentionParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, attend<T>(p, begin, end));
}

void esu_attention_backward(const EsuAttentionBackwardParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.forward.behaviours.dtype, T, attend_backward<T>(p, begin, end));
}

void esu_table_grad(const EsuTableGradParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.dtype, T, table_grad<T>(p, begin, end));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE

LONGCLOCK_CPU_ENTRY(esu_attention, EsuAttentionParams)
LONGCLOCK_CPU_ENTRY(esu_attention_backward, EsuAttentionBackwardParams)
LONGCLOCK_CPU_ENTRY(esu_table_grad, EsuTableGradParams)
