// SPDX-License-Identifier: Apache-2.0
// The end of the longest sequence, of 2^31 - 1 behaviours: tiles there reach past what an int
// holds. Its keys and times are those of the last behaviours alone; whatever else is read is a
// fault that the emulator reports.
#include <algorithm>

#include "device_vector.h"
#include "longclock/search/key_stages.cuh"
#include "longclock/search/tile_scorer.cuh"

namespace longclock {
namespace {

using emulator::DeviceVector;

constexpr unsigned kLongest = 0x7fffffff;
constexpr unsigned kKept = 256;  // behaviours that there is memory for: the last ones
constexpr unsigned kFirstKept = kLongest - kKept;

template <class T>
T of_int(int value) {
  if constexpr (sizeof(T) == 4) {
    return static_cast<float>(value);
  } else {
    return {static_cast<uint16_t>(__half_as_ushort(__float2half_rn(static_cast<float>(value))))};
  }
}

int element(unsigned m, int d) {
  return static_cast<int>((m * 7 + static_cast<unsigned>(d)) % 5) - 2;
}

// A search of one sequence, and what it points to.
template <class T>
struct FarSearch {
  explicit FarSearch(int dim)
      : keys(kKept * static_cast<size_t>(dim)),
        query(static_cast<size_t>(dim)),
        times(std::vector<int32_t>(kKept, 0)),
        weights(std::vector<float>{0, 0, 0, 0, 0, 0, 3}) {
    std::vector<T> rows, first;
    for (unsigned m = kFirstKept; m < kLongest; ++m) {
      for (int d = 0; d < dim; ++d) rows.push_back(of_int<T>(element(m, d)));
    }
    for (int d = 0; d < dim; ++d) first.push_back(of_int<T>(d % 3 + 1));
    EXPECT_CUDA(cudaMemcpy(keys.data(), rows.data(), keys.bytes(), cudaMemcpyHostToDevice));
    EXPECT_CUDA(cudaMemcpy(query.data(), first.data(), query.bytes(), cudaMemcpyHostToDevice));
    const float* w = weights.data();  // of one hidden unit that says nothing: s is 3
    search.behaviours.keys = keys.data();
    search.behaviours.dtype = sizeof(T) == 4 ? DType::kFloat32 : DType::kFloat16;
    search.behaviours.dim = dim;
    search.behaviours.key_row_stride = dim;
    search.behaviours.key_time = {times.data(), false};
    search.behaviours.time.clocks = 1;
    search.behaviours.time.clock[0] = {86400, {w, w + 4, w + 5, w + 6, 1, 3600.0}, false};
    make_device_clocks(search.behaviours.time, search.clocks);
    search.row_bytes = static_cast<unsigned>(dim * sizeof(T));
    search.queries = search.sequences = search.candidates = 1;
    search.columns = search.positions = kLongest;
    search.query = query.data();
    search.query_dim = dim;
    search.query_is_float = sizeof(T) == 4;
    search.scale = 1.0f;
    view.keys =
        reinterpret_cast<const char*>(keys.data()) - uint64_t{kFirstKept} * search.row_bytes;
    view.times = reinterpret_cast<const char*>(times.data()) - uint64_t{kFirstKept} * 4;
    view.length = static_cast<int>(kLongest);
  }

  float score(unsigned m) const {
    int sum = 3;
    for (int d = 0; d < search.behaviours.dim; ++d) sum += element(m, d) * (d % 3 + 1);
    return static_cast<float>(sum);
  }

  DeviceVector<T> keys, query;
  DeviceVector<int32_t> times;
  DeviceVector<float> weights;
  DeviceSearchParams search{};
  SequenceView view{};
};

// s() of a query at time 0, by all threads.
__device__ void load_clock(const DeviceSearchParams& p, SharedTimeTerm* time) {
  if (threadIdx.x == 0) time->query_clock[0] = 0;
  load_time_mlps(p.behaviours.time.clock[0].mlp, 1, time);
}

// One warp, one tile: by each lane its behaviour, whether it is valid, and its score.
template <class T, RowForm kForm>
__global__ void tile_kernel(const __grid_constant__ DeviceSearchParams p, const SequenceView view,
                            unsigned first, unsigned end, unsigned* behaviours, int* valid,
                            float* scores) {
  __shared__ uint4 memory[64];
  __shared__ SharedTimeTerm time;
  T* const query = reinterpret_cast<T*>(memory);
  if (kForm != RowForm::kElements) load_query<T>(p, 0, query);
  load_clock(p, &time);
  __syncthreads();
  const TileScorer<T, kForm, false> scorer(p, 0, view, query, time);
  float score = 0.0f;
  valid[threadIdx.x] = scorer.score(first, end, &score);
  behaviours[threadIdx.x] = scorer.behaviour(first);
  scores[threadIdx.x] = score;
}

class FarPositionsTest : public emulator::EmulatorTest {
 protected:
  template <class T, RowForm kForm>
  void check_tile(int dim, unsigned first) {
    const FarSearch<T> far(dim);
    const DeviceVector<unsigned> behaviours(kWarp);
    const DeviceVector<int> valid(kWarp);
    const DeviceVector<float> scores(kWarp);
    tile_kernel<T, kForm><<<1, kWarp>>>(far.search, far.view, first, kLongest, behaviours.data(),
                                        valid.data(), scores.data());
    EXPECT_CUDA(cudaGetLastError());
    const std::vector<unsigned> m = behaviours.host();
    const std::vector<int> valid_of = valid.host();
    const std::vector<float> score = scores.host();
    unsigned found = 0;
    for (int lane = 0; lane < kWarp; ++lane) {
      EXPECT_GE(m[lane], first);
      EXPECT_LT(m[lane], first + kWarp);
      EXPECT_EQ(valid_of[lane] != 0, m[lane] < kLongest) << "behaviour " << m[lane];
      if (valid_of[lane] == 0) continue;
      ++found;
      EXPECT_EQ(score[lane], far.score(m[lane])) << "behaviour " << m[lane];
    }
    EXPECT_EQ(found, std::min(kLongest - first, unsigned{kWarp}));
  }
};

TEST_F(FarPositionsTest, TilesAtTheEnd) {
  for (const unsigned back : {32u, 31u, 17u, 1u}) {
    check_tile<float, RowForm::kElements>(5, kLongest - back);
    check_tile<float, RowForm::kQuads>(8, kLongest - back);
    check_tile<float, RowForm::kLines>(32, kLongest - back);
    check_tile<Float16, RowForm::kElements>(5, kLongest - back);
    check_tile<Float16, RowForm::kQuads>(8, kLongest - back);
    check_tile<Float16, RowForm::kLines>(64, kLongest - back);
  }
}

// The first element of every key of [begin, end), as the stages bring it, and s.
__global__ void stages_kernel(const __grid_constant__ DeviceSearchParams p, const SequenceView view,
                              unsigned begin, unsigned end, float* keys, float* s,
                              uint32_t* valid) {
  using Stages = KeyStages<128>;
  extern __shared__ __align__(1024) char memory[];
  __shared__ Stages::Shared shared;
  if (threadIdx.x == 0) {
    shared.view = view;
    shared.times = nullptr;
  }
  load_clock(p, &shared.time);
  __syncthreads();
  if constexpr (!kHasAsyncCopy) return;
  Stages stages(p, begin, end, &shared, memory);
  stages.start();
  for (int tile = 0, pair = 0; tile < stages.tiles(); ++pair) {
    stages.begin_pair(pair);
    for (; tile < min(stages.tiles(), (pair + 1) * kPairTiles); ++tile) {
      const uint32_t stage = stages.wait(tile);
      if (threadIdx.x >= kTileKeys) continue;
      const int key = static_cast<int>(threadIdx.x), at = tile * kTileKeys + key;
      float value;
      asm volatile("ld.shared.f32 %0, [%1];"
                   : "=f"(value)
                   : "r"(stage + swizzled<128>(row_of_key(key), 0)));
      keys[at] = value;
      s[at] = stages.s(tile, key / kWarpKeys)[key % kWarpKeys];
      valid[at] = stages.valid(tile, key / kWarpKeys) >> (key % kWarpKeys) & 1;
    }
  }
}

TEST_F(FarPositionsTest, StagesOfKeysAtTheEnd) {
  const FarSearch<float> far(32);
  const unsigned begin = kLongest / kPairKeys * kPairKeys;  // the last part's last pair
  const DeviceVector<float> keys(kPairKeys), s(kPairKeys);
  const DeviceVector<uint32_t> valid(kPairKeys);
  stages_kernel<<<1, kSweepThreads, KeyStages<128>::kBytes>>>(far.search, far.view, begin, kLongest,
                                                              keys.data(), s.data(), valid.data());
  EXPECT_CUDA(cudaGetLastError());
  const std::vector<float> key = keys.host(), of_s = s.host();
  const std::vector<uint32_t> valid_of = valid.host();
  for (unsigned i = 0; i < kPairKeys; ++i) {
    const bool inside = begin + i < kLongest;
    EXPECT_EQ(valid_of[i] != 0, inside) << i;
    EXPECT_EQ(key[i], inside ? static_cast<float>(element(begin + i, 0)) : 0.0f) << i;
    if (inside) EXPECT_EQ(of_s[i], 3.0f) << i;
  }
}

}  // namespace
}  // namespace longclock
