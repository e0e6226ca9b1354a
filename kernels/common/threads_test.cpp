// SPDX-License-Identifier: Apache-2.0
// Every kernel on std::threads, tasks handed to whichever is free: made for ThreadSanitizer, which
// sees where two tasks, or two calls at once, touch the same memory.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "longclock/block_topk/block_topk.h"
#include "longclock/circular_delta/circular_delta.h"
#include "longclock/clock_gsu/clock_gsu.h"
#include "longclock/common/levels_test.h"
#include "longclock/esu_attention/esu_attention.h"
#include "longclock/gsu_score/gsu_score.h"
#include "longclock/hamming_gsu/hamming_gsu.h"
#include "longclock/pack_signs/pack_signs.h"
#include "longclock/search/search_test.h"
#include "longclock/time_similarity/time_similarity.h"

namespace longclock {
namespace {

constexpr int kThreads = 4;

// Calls f(i) on a thread of its own for each i < kThreads.
void on_threads(const std::function<void(int)>& f) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(f, i);
  for (std::thread& thread : threads) thread.join();
}

// Kernel calls on ranges of [0, count), whose tasks may run in any order and at once.
struct Stage {
  int64_t count;
  std::function<void(int64_t begin, int64_t end)> run;
};

void run_alone(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages) stage.run(0, stage.count);
}

void run_shared(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages) {
    std::atomic<int64_t> next{0};
    on_threads([&](int) {
      for (int64_t i = next++; i < stage.count; i = next++) stage.run(i, i + 1);
    });
  }
}

// Two sequences of 600 behaviours and what is found in them, forward and backward.
class Searches {
 public:
  Searches(int64_t candidates, bool by_ids)
      : f_(2, candidates, 600, 7),
        queries_(2 * candidates),
        ids_(1200),
        tasks_(f_.tasks(12, kParts)),
        whole_(f_.tasks(kTaskQueries, 1)),
        scores(queries_ * 600),
        best(queries_ * kBest),
        hash_best(best.size()),
        query_grad(queries_ * 7),
        key_grad(f_.keys.size()),
        s_grad(1200),
        entries_(queries_ * kParts * kBest),
        hash_entries_(entries_.size()),
        indices(best.size()),
        hash_indices(best.size()),
        s_delta_(1200),
        words_(1200 * 7),
        hashes_(queries_) {
    for (int64_t i = 0; i < 1200; i += 5) f_.mask[i] = 0;
    f_.behaviours.mask = f_.mask.data();
    std::mt19937_64 random(5);
    for (int32_t& id : ids_) id = static_cast<int32_t>(random() % (by_ids ? 300 : 1200));
    if (by_ids) f_.behaviours.ids = {ids_.data(), false};
    for (uint64_t& word : words_) word = random() & random();
    for (uint64_t& hash : hashes_) hash = random();
  }

  std::vector<Stage> stages() {
    const int64_t tasks = static_cast<int64_t>(tasks_.size());
    const GsuScoreParams scored{f_.behaviours, f_.queries.data(), f_.stride,     f_.groups.data(),
                                tasks_.data(), f_.scale,          scores.data(), false};
    const DotSearchParams found{found_in(f_.behaviours, &entries_, &best, &indices),
                                f_.queries.data(), f_.stride, f_.scale};
    Behaviours hashed = f_.behaviours;
    hashed.dtype = DType::kInt64;
    hashed.keys = words_.data();
    hashed.dim = 1;  // of rows as far apart as the keys'
    const HammingGsuParams nearest{found_in(hashed, &hash_entries_, &hash_best, &hash_indices),
                                   hashes_.data()};
    std::vector<Stage> stages{
        {tasks, [=](int64_t begin, int64_t end) { gsu_score_cpu(scored, begin, end); }},
        {tasks, [=](int64_t begin, int64_t end) { clock_gsu_cpu(found, begin, end); }},
        {queries_, [=](int64_t begin, int64_t end) { search_merge_cpu(found, begin, end); }},
        {tasks, [=](int64_t begin, int64_t end) { hamming_gsu_cpu(nearest, begin, end); }},
        {queries_, [=](int64_t begin, int64_t end) { search_merge_cpu(nearest, begin, end); }},
    };
    add_gradients(&stages);
    return stages;
  }

  auto results() const {
    return std::tie(scores, best, hash_best, query_grad, key_grad, s_grad, indices, hash_indices);
  }

 private:
  static constexpr int64_t kParts = 3, kBest = 20;

  SearchTopKParams found_in(const Behaviours& behaviours, std::vector<TopKEntry>* entries,
                            std::vector<float>* top, std::vector<int64_t>* at) const {
    return {behaviours, f_.groups.data(), tasks_.data(), kBest,
            kParts,     entries->data(),  top->data(),   at->data()};
  }

  void add_gradients(std::vector<Stage>* stages) {
    GsuScoreBackwardParams p{};
    p.behaviours = f_.behaviours;
    p.queries = f_.queries.data();
    p.query_stride = f_.stride;
    p.groups = f_.groups.data();
    p.group_count = 2;
    p.most_queries = f_.candidates;
    p.tasks = whole_.data();
    p.scale = f_.scale;
    p.grad = scores.data();
    p.query_grad = query_grad.data();
    p.key_grad = key_grad.data();
    p.part_begin = part_begin_;
    p.part_groups = part_groups_;
    p.positions = 1200;
    p.s_begin = s_begin_;
    p.s_grad = s_grad.data();
    p.s_delta = s_delta_.data();
    // No -inf, the score of what is not valid, times a query.
    stages->push_back({queries_, [this](int64_t begin, int64_t end) {
                         for (int64_t i = begin * 600; i < end * 600; ++i) {
                           scores[i] = std::isfinite(scores[i]) ? scores[i] : 0.0f;
                         }
                       }});
    stages->push_back(
        {2, [=](int64_t begin, int64_t end) { gsu_score_query_grad_cpu(p, begin, end); }});
    if (f_.behaviours.ids) {
      stages->push_back({12, [=](int64_t begin, int64_t end) {
                           gsu_score_table_grad_cpu(p, begin * 25, end * 25);
                         }});
    } else {
      stages->push_back(
          {2, [=](int64_t begin, int64_t end) { gsu_score_key_grad_cpu(p, begin, end); }});
    }
    stages->push_back(
        {2, [=](int64_t begin, int64_t end) { gsu_score_s_grad_cpu(p, begin, end); }});
  }

  SearchFixture f_;
  int64_t queries_;
  std::vector<int32_t> ids_;
  std::vector<SearchTask> tasks_, whole_;
  std::vector<float> scores, best, hash_best, query_grad, key_grad, s_grad;
  std::vector<TopKEntry> entries_, hash_entries_;
  std::vector<int64_t> indices, hash_indices;
  std::vector<int32_t> s_delta_;
  std::vector<uint64_t> words_, hashes_;
  static constexpr int64_t part_begin_[] = {0, 2, 3}, part_groups_[] = {0, 1, 1};
  static constexpr int64_t s_begin_[] = {0, 600};
};

// Attention of 8 queries over 100 behaviours each with 2 heads, its gradients, and that of a table.
class Attention {
 public:
  Attention() : floats_(8 * 2 * 16 + 800 * 5), times_(800), now_(8, 1700000000), ids_(800) {
    std::mt19937 random(5);
    for (float& x : floats_) x = static_cast<float>(random() % 9) / 8.0f - 0.5f;
    for (float& x : grad_) x = static_cast<float>(random() % 9) / 8.0f;
    for (int64_t& t : times_) t = static_cast<int64_t>(random() % 2000000000);
    for (int64_t& id : ids_) id = static_cast<int64_t>(random() % 50);
  }

  std::vector<Stage> stages() {
    EsuAttentionBackwardParams b{};
    EsuAttentionParams& p = b.forward;
    p.behaviours.dtype = DType::kFloat32;
    p.behaviours.keys = floats_.data() + 8 * 2 * 16;
    p.behaviours.key_row_stride = p.behaviours.dim = 5;
    p.behaviours.key_time = {times_.data(), true};
    p.behaviours.time.clocks = 1;
    p.behaviours.time.clock[0] = {86400, {mlp_, mlp_ + 4, mlp_ + 5, mlp_ + 6, 1, 3600.0}, false};
    p.z_query_stride = 500;
    p.query_time = {now_.data(), true};
    p.heads = 2;
    p.k = 100;
    p.dim = 5;
    p.width = 5 + kTimeFeatures;
    p.u = floats_.data();
    p.u_stride = 16;
    p.context = context.data();
    p.softmax = softmax_.data();
    b.grad = grad_.data();
    b.u_grad = u_grad.data();
    b.z_grad = z_grad.data();
    b.s_grad = s_grad.data();
    b.s_delta = s_delta_.data();
    const EsuTableGradParams t{z_grad.data(),   5,  {ids_.data(), true}, nullptr, 800, 5,
                               DType::kFloat32, 50, table_grad.data()};
    return {
        {8, [=](int64_t begin, int64_t end) { esu_attention_cpu(b.forward, begin, end); }},
        {8, [=](int64_t begin, int64_t end) { esu_attention_backward_cpu(b, begin, end); }},
        {50, [=](int64_t begin, int64_t end) { esu_table_grad_cpu(t, begin, end); }},
    };
  }

  auto results() const { return std::tie(context, u_grad, z_grad, s_grad, table_grad); }

 private:
  std::vector<float> floats_;
  std::vector<int64_t> times_, now_, ids_;
  std::vector<float> grad_ = std::vector<float>(8 * 2 * 9), softmax_ = std::vector<float>(32);
  std::vector<int32_t> s_delta_ = std::vector<int32_t>(800);
  std::vector<float> context = grad_, u_grad = std::vector<float>(80),
                     z_grad = std::vector<float>(4000), s_grad = std::vector<float>(800),
                     table_grad = std::vector<float>(250);
  static constexpr float mlp_[] = {0.5f, 0, 0, 0, -1, -1, 0.25f};
};

// What works on rows and elements: a selection, its gradient, signs, deltas, and s with its own.
class Elements {
 public:
  Elements() {
    std::mt19937 random(7);
    for (float& x : x_) x = static_cast<float>(random() % 1000) - 500.0f;
    for (int64_t& t : times_) t = static_cast<int64_t>(random() % 2000000000);
    for (float& w : mlp_) w = static_cast<float>(random() % 9) / 8.0f - 0.5f;
  }

  std::vector<Stage> stages() {
    BlockTopKParams top{};
    top.dtype = DType::kFloat32;
    top.scores = x_.data();
    top.rows = kRows;
    top.columns = top.row_stride = kColumns;
    top.k = kBest;
    top.parts = 3;
    top.entries = entries_.data();
    top.top_scores = best.data();
    top.indices = indices.data();
    const BlockTopKBackwardParams back{top.dtype, best.data(), indices.data(), kRows,
                                       kBest,     kColumns,    grad.data()};
    const PackSignsParams signs_of{top.dtype, x_.data(), kRows, kColumns, signs.data()};
    CircularDeltaParams apart{};
    apart.a = apart.b = {times_.data(), true};
    apart.dims = 1;
    apart.sizes[0] = kCount;
    apart.a_strides[0] = 1;
    apart.b_strides[0] = 0;
    apart.period = 86400;
    apart.out = delta.data();
    const float* w = mlp_.data();
    const TimeMlp mlp{w, w + 32, w + 40, w + 48, 8, 3600.0};
    const IntArray deltas{delta.data(), true};
    const TimeSimilarityParams similar{deltas, kCount, mlp, s.data()};
    float* g = mlp_grad.data();
    const TimeSimilarityBackwardParams learned{
        deltas, s.data(), kCount, mlp, partial_.data(), {g, g + 32, g + 40, g + 48}};
    return {
        {3 * kRows, [=](int64_t begin, int64_t end) { block_topk_cpu(top, begin, end); }},
        {kRows, [=](int64_t begin, int64_t end) { block_topk_merge_cpu(top, begin, end); }},
        {kRows, [=](int64_t begin, int64_t end) { block_topk_backward_cpu(back, begin, end); }},
        {kRows, [=](int64_t begin, int64_t end) { pack_signs_cpu(signs_of, begin, end); }},
        in_pieces([=](int64_t begin, int64_t end) { circular_delta_cpu(apart, begin, end); }),
        in_pieces([=](int64_t begin, int64_t end) { time_similarity_cpu(similar, begin, end); }),
        {kParts,
         [=](int64_t begin, int64_t end) { time_similarity_backward_cpu(learned, begin, end); }},
        {time_mlp_size(8),
         [=](int64_t begin, int64_t end) {
           time_similarity_backward_reduce_cpu(learned, begin, end);
         }},
    };
  }

  auto results() const { return std::tie(best, grad, s, mlp_grad, indices, delta, signs); }

 private:
  static constexpr int64_t kRows = 6, kColumns = 3000, kBest = 50, kCount = 20000;
  static constexpr int64_t kParts = time_similarity_backward_parts(kCount);

  static Stage in_pieces(std::function<void(int64_t, int64_t)> f) {
    return {kCount / 100, [f](int64_t begin, int64_t end) { f(begin * 100, end * 100); }};
  }

  std::vector<float> x_ = std::vector<float>(kRows * kColumns), mlp_ = std::vector<float>(49);
  std::vector<int64_t> times_ = std::vector<int64_t>(kCount);
  std::vector<TopKEntry> entries_ = std::vector<TopKEntry>(kRows * 3 * kBest);
  std::vector<double> partial_ = std::vector<double>(kParts * 49);
  std::vector<float> best = std::vector<float>(kRows * kBest), grad = x_,
                     s = std::vector<float>(kCount), mlp_grad = mlp_;
  std::vector<int64_t> indices = std::vector<int64_t>(kRows * kBest), delta = times_;
  std::vector<uint64_t> signs = std::vector<uint64_t>(kRows * sign_words(kColumns));
};

// Shared tasks, and calls of several threads at once, give the bits of one thread.
template <class Work, class... Arguments>
void expect_equal_on_threads(Arguments... arguments) {
  for_each_level([&] {
    Work alone(arguments...), shared(arguments...);
    run_alone(alone.stages());
    run_shared(shared.stages());
    EXPECT_TRUE(shared.results() == alone.results());
    std::atomic<int> equal{0};
    on_threads([&](int) {
      Work own(arguments...);
      run_alone(own.stages());
      equal += own.results() == alone.results();
    });
    EXPECT_EQ(equal, kThreads);
  });
}

TEST(Threads, SearchesGiveTheBitsOfOne) {
  for (int64_t candidates : {1, 40}) {
    for (bool by_ids : {false, true}) {
      SCOPED_TRACE(std::to_string(candidates) + " candidates" + (by_ids ? ", ids" : ""));
      expect_equal_on_threads<Searches>(candidates, by_ids);
    }
  }
}

TEST(Threads, AttentionGivesTheBitsOfOne) { expect_equal_on_threads<Attention>(); }

TEST(Threads, ElementsGiveTheBitsOfOne) { expect_equal_on_threads<Elements>(); }

}  // namespace
}  // namespace longclock
