// SPDX-License-Identifier: Apache-2.0
#include "../gsu_score/behaviour_block-inl.h"
#include "esu_attention.h"

namespace longclock::LONGCLOCK_SIMD_NAMESPACE {
namespace {

// Behaviours done together: their rows stay in the first-level cache between the dot products and
// the weighted sums.
constexpr int64_t kEsuBlock = 64;
static_assert(kEsuBlock <= kBehaviourBlock && kEsuBlock % kLanes == 0);

// The attention's view of a block: the valid behaviours only, moved together, and their alphas.
template <class T>
class EsuBlock {
 public:
  EsuBlock(const EsuAttentionParams& p, Scratch* scratch)
      : p_(p), padded_(round_up(p.behaviours.dim, kLanes)) {
    block_ = scratch->take<BehaviourBlock<T>>(1);
    copies_ = scratch->take<float>(kEsuBlock * padded_);
    u_rows_ = scratch->take<const float*>(p.heads);
    alpha_ = scratch->take<float>(p.heads * kEsuBlock);
  }

  // Behaviours [begin, begin + n) of query q; returns how many are valid.
  int64_t read(int64_t q, int64_t begin, int64_t n) {
    const Group group{q, q + 1, p_.query_time[q], q * p_.k, q * p_.z_query_stride, p_.k, 0, 0};
    BehaviourBlock<T>& b = *block_;
    read_times(p_.behaviours, group, begin, n, &b);
    find_rows(p_.behaviours, group, begin, n, &b);
    count_ = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (!b.all_kept && b.keep[i] == 0) continue;
      index_[count_] = begin + i;
      b.delta[count_] = b.delta[i];
      b.rows[count_] = b.rows[i];
      ++count_;
    }
    if (count_ == 0) return 0;
    if (p_.behaviours.ids) {
      for (int64_t i = 0; i < count_; ++i) prefetch_row(b.rows[i], p_.behaviours.dim * sizeof(T));
    }
    // The features past the last behaviour are those of a delta of 0: finite, for whole vectors.
    const int64_t whole = round_up(count_, kLanes);
    for (int64_t i = count_; i < whole; ++i) b.delta[i] = 0;
    time_features(b.delta, whole, p_.behaviours.mlp.unit, &b.features);
    if (p_.behaviours.time_table != nullptr) {
      for (int64_t i = 0; i < whole; ++i) b.s[i] = p_.behaviours.time_table[b.delta[i]];
    } else {
      time_similarity(p_.behaviours.mlp, b.features, whole, b.s);
    }
    widen_rows(b.rows, count_, p_.behaviours.dim, copies_, rows_);
    for (int64_t h = 0; h < p_.heads; ++h) u_rows_[h] = p_.u + (q * p_.heads + h) * p_.u_stride;
    dot_tiles(u_rows_, p_.heads, rows_, count_, padded_, alpha_, kEsuBlock);
    for (int64_t h = 0; h < p_.heads; ++h) {
      float* alpha = alpha_ + h * kEsuBlock;
      for (int64_t i = 0; i < count_; ++i) alpha[i] += b.s[i];
    }
    return count_;
  }

  const float* const* rows() const { return rows_; }
  const float* const* u_rows() const { return u_rows_; }
  const float* alpha(int64_t head) const { return alpha_ + head * kEsuBlock; }
  const int64_t* index() const { return index_; }
  const int32_t* delta() const { return block_->delta; }
  const TimeFeatureBlock& features() const { return block_->features; }
  int64_t padded() const { return padded_; }

 private:
  const EsuAttentionParams& p_;
  int64_t padded_;
  BehaviourBlock<T>* block_;
  float* copies_;
  const float** u_rows_;
  float* alpha_;
  int64_t count_ = 0;
  int64_t index_[kEsuBlock];
  const float* rows_[kEsuBlock];
};

inline float sum_lanes(Vf v) {
  Vf rows[kLanes] = {v};
  return reduce_rows(rows)[0];
}

// sum over i of weights[i] * values[i], whole vectors; weights are 0 past the last.
inline float weighted_sum(const float* weights, const float* values, int64_t n) {
  Vf sum = {};
  for (int64_t i = 0; i < n; i += kLanes) sum = fma(load(weights + i), load(values + i), sum);
  return sum_lanes(sum);
}

// dot + the product of the four time features with their gradient.
inline float add_time_product(float dot, const float* grad, float x, float root, float square,
                              float log) {
  dot = fma(grad[0], x, dot);
  dot = fma(grad[1], root, dot);
  dot = fma(grad[2], square, dot);
  return fma(grad[3], log, dot);
}

// Online softmax: a running maximum, sum and weighted sum a head; a block is summed on its own and
// then added, so that a long row does not gather the rounding of one long chain.
template <class T>
void attend(const EsuAttentionParams& p, int64_t begin, int64_t end) {
  const int64_t dim = p.behaviours.dim;
  Scratch scratch;
  EsuBlock<T> block(p, &scratch);
  const int64_t padded = block.padded();
  float* weights = scratch.take<float>(p.heads * kEsuBlock);
  float* part = scratch.take<float>(p.heads * padded);
  float* total = scratch.take<float>(p.heads * (padded + kTimeFeatures));
  float* highest = scratch.take<float>(p.heads);
  float* sum = scratch.take<float>(p.heads);
  for (int64_t q = begin; q < end; ++q) {
    const int64_t stride = padded + kTimeFeatures;
    for (int64_t i = 0; i < p.heads * stride; ++i) total[i] = 0.0f;
    for (int64_t h = 0; h < p.heads; ++h) highest[h] = -__builtin_inff();
    for (int64_t h = 0; h < p.heads; ++h) sum[h] = 0.0f;
    bool any = false;
    for (int64_t at = 0; at < p.k; at += kEsuBlock) {
      const int64_t count = block.read(q, at, smaller(kEsuBlock, p.k - at));
      if (count == 0) continue;
      any = true;
      const int64_t whole = round_up(count, kLanes);
      const TimeFeatureBlock& f = block.features();
      for (int64_t i = 0; i < p.heads * padded; ++i) part[i] = 0.0f;
      for (int64_t h = 0; h < p.heads; ++h) {
        const float* alpha = block.alpha(h);
        float* weight = weights + h * kEsuBlock;
        float top = highest[h];
        for (int64_t i = 0; i < count; ++i) top = alpha[i] > top ? alpha[i] : top;
        const float base = top == -__builtin_inff() ? 0.0f : top;  // all -inf so far: weights of 0
        const float fade = exp_negative(highest[h] - base);
        highest[h] = top;
        for (int64_t i = 0; i < count; ++i) weight[i] = exp_negative(alpha[i] - base);
        for (int64_t i = count; i < whole; ++i) weight[i] = 0.0f;
        Vf weight_sum = {};
        for (int64_t i = 0; i < whole; i += kLanes) weight_sum = weight_sum + load(weight + i);
        sum[h] = fma(sum[h], fade, sum_lanes(weight_sum));
        float* to = total + h * stride;
        for (int64_t i = 0; i < stride; ++i) to[i] *= fade;
        to[padded + 0] += weighted_sum(weight, f.x, whole);
        to[padded + 1] += weighted_sum(weight, f.root, whole);
        to[padded + 2] += weighted_sum(weight, f.square, whole);
        to[padded + 3] += weighted_sum(weight, f.log, whole);
      }
      add_weighted_rows(weights, kEsuBlock, 1, p.heads, block.rows(), count, padded, part, padded);
      for (int64_t h = 0; h < p.heads; ++h) {
        float* to = total + h * stride;
        for (int64_t i = 0; i < padded; ++i) to[i] += part[h * padded + i];
      }
    }
    for (int64_t h = 0; h < p.heads; ++h) {
      float* out = p.context + (q * p.heads + h) * (dim + kTimeFeatures);
      const float* from = total + h * stride;
      // Valid behaviours whose alphas are all -inf give 0 / 0, as torch's softmax does.
      const float divisor = any ? sum[h] : 1.0f;
      for (int64_t i = 0; i < dim; ++i) out[i] = from[i] / divisor;
      for (int64_t i = 0; i < kTimeFeatures; ++i) out[dim + i] = from[padded + i] / divisor;
      float* softmax = p.softmax + (q * p.heads + h) * 2;
      softmax[0] = highest[h];
      softmax[1] = any ? __builtin_logf(sum[h]) : 0.0f;
    }
  }
}

// With g_ik = grad_i . [z_k ; phi_k]:  ds_ik = p_ik (g_ik - grad_i . context_i),
// dz_k = sum over i of ds_ik u_i + p_ik grad_i,  du_i = sum over k of ds_ik z_k.
template <class T>
void attend_backward(const EsuAttentionBackwardParams& p, int64_t begin, int64_t end) {
  const EsuAttentionParams& f = p.forward;
  const int64_t dim = f.behaviours.dim, heads = f.heads, wide = dim + kTimeFeatures;
  Scratch scratch;
  EsuBlock<T> block(f, &scratch);
  const int64_t padded = block.padded();
  float* grad = scratch.take<float>(heads * padded);
  auto* rows = scratch.take<const float*>(2 * heads);  // u, then grad
  float* share = scratch.take<float>(heads);           // grad_i . context_i
  float* g = scratch.take<float>(heads * kEsuBlock);
  float* weights = scratch.take<float>(2 * heads * kEsuBlock);  // ds, then p
  float* z_grad = scratch.take<float>(kEsuBlock * padded);
  float* part = scratch.take<float>(heads * padded);
  float* u_grad = scratch.take<float>(heads * padded);
  for (int64_t q = begin; q < end; ++q) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* from = p.grad + (q * heads + h) * wide;
      const float* context = f.context + (q * heads + h) * wide;
      for (int64_t i = 0; i < padded; ++i) grad[h * padded + i] = i < dim ? from[i] : 0.0f;
      rows[heads + h] = grad + h * padded;
      // Summed as g is, so that their difference is exactly 0 where one behaviour has all the
      // weight.
      alignas(64) float dot[kLanes];
      dot_rows(grad + h * padded, &context, 1, dim, dot);
      const float* time = context + dim;
      share[h] = add_time_product(dot[0], from + dim, time[0], time[1], time[2], time[3]);
    }
    for (int64_t i = 0; i < heads * padded; ++i) u_grad[i] = 0.0f;
    T* z_out = p.z_grad == nullptr ? nullptr : static_cast<T*>(p.z_grad) + q * f.k * dim;
    for (int64_t at = 0; at < f.k; at += kEsuBlock) {
      const int64_t n = smaller(kEsuBlock, f.k - at);
      const int64_t count = block.read(q, at, n);
      if (count < n && z_out != nullptr) {
        for (int64_t i = at * dim; i < (at + n) * dim; ++i) z_out[i] = T{};
      }
      if (p.s_grad != nullptr) {
        for (int64_t i = 0; i < n; ++i) p.s_grad[q * f.k + at + i] = 0.0f;
        for (int64_t i = 0; i < n; ++i) p.s_delta[q * f.k + at + i] = 0;
      }
      if (count == 0) continue;
      const TimeFeatureBlock& phi = block.features();
      dot_tiles(rows + heads, heads, block.rows(), count, padded, g, kEsuBlock);
      for (int64_t h = 0; h < heads; ++h) {
        rows[h] = block.u_rows()[h];
        const float* alpha = block.alpha(h);
        const float* time_grad = p.grad + (q * heads + h) * wide + dim;
        const float* softmax = f.softmax + (q * heads + h) * 2;
        float* ds = weights + h * kEsuBlock;
        float* weight = weights + (heads + h) * kEsuBlock;
        for (int64_t i = 0; i < count; ++i) {
          const float gain = add_time_product(g[h * kEsuBlock + i], time_grad, phi.x[i],
                                              phi.root[i], phi.square[i], phi.log[i]);
          // In two steps: largest + log(sum) would lose the logarithm's digits to a large alpha.
          weight[i] = exp_negative((alpha[i] - softmax[0]) - softmax[1]);
          ds[i] = weight[i] * (gain - share[h]);
        }
      }
      if (p.s_grad != nullptr) {
        for (int64_t i = 0; i < count; ++i) {
          float sum = 0.0f;
          for (int64_t h = 0; h < heads; ++h) sum += weights[h * kEsuBlock + i];
          p.s_grad[q * f.k + block.index()[i]] = sum;
          p.s_delta[q * f.k + block.index()[i]] = block.delta()[i];
        }
      }
      if (z_out != nullptr) {
        for (int64_t i = 0; i < count * padded; ++i) z_grad[i] = 0.0f;
        add_weighted_rows(weights, 1, kEsuBlock, count, rows, 2 * heads, padded, z_grad, padded);
        for (int64_t i = 0; i < count; ++i) {
          narrow_row(z_grad + i * padded, dim, z_out + block.index()[i] * dim);
        }
      }
      if (p.u_grad != nullptr) {
        for (int64_t i = 0; i < heads * padded; ++i) part[i] = 0.0f;
        add_weighted_rows(weights, kEsuBlock, 1, heads, block.rows(), count, padded, part, padded);
        for (int64_t i = 0; i < heads * padded; ++i) u_grad[i] += part[i];
      }
    }
    if (p.u_grad != nullptr) {
      for (int64_t h = 0; h < heads; ++h) {
        narrow_row(u_grad + h * padded, dim, p.u_grad + (q * heads + h) * dim);
      }
    }
  }
}

}  // namespace

void esu_attention(const EsuAttentionParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.behaviours.dtype, T, attend<T>(p, begin, end));
}

void esu_attention_backward(const EsuAttentionBackwardParams& p, int64_t begin, int64_t end) {
  LONGCLOCK_WITH_DTYPE(p.forward.behaviours.dtype, T, attend_backward<T>(p, begin, end));
}

}  // namespace longclock::LONGCLOCK_SIMD_NAMESPACE
