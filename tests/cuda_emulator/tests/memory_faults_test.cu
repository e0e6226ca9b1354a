// SPDX-License-Identifier: Apache-2.0
// Addresses and values: out of bounds, misaligned, freed, const, never written.
// clang-format off: a mark must stay on the line of its fault.
#include "faults.h"

namespace longclock::emulator {
namespace {

constexpr int kThreads = 64;

template <bool kFaulty>
__global__ void global_read_past_end(const int* in, int* out, int n) {
  const int i = threadIdx.x;
  out[i] = in[kFaulty ? i + 1 : i];  // fault: global_read_past_end
}

template <bool kFaulty>
__global__ void global_write_past_end(int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (kFaulty || i < n) {
    out[i] = i;  // fault: global_write_past_end
  }
}

template <bool kFaulty>
__global__ void global_write_before_begin(int* out) {
  out[static_cast<int>(threadIdx.x) - (kFaulty ? 1 : 0)] = 1;  // fault: global_write_before_begin
}

template <bool kFaulty>
__global__ void null_pointer(int* out, const int* factor) {
  int value = 1;
  if (kFaulty || factor != nullptr) {
    value = *factor;  // fault: null_pointer
  }
  out[threadIdx.x] = value;
}

// Pointer arithmetic multiplies by the size of an element already.
template <bool kFaulty>
__global__ void index_in_bytes(float* out) {
  const size_t at = kFaulty ? threadIdx.x * sizeof(float) : threadIdx.x;
  out[at] = 1.0f;  // fault: index_in_bytes
}

template <bool kFaulty>
__global__ void vector_past_end(const float* in, float* out, int n) {
  const int i = threadIdx.x * 4;
  if (kFaulty ? i < n : i + 4 <= n) {
    const float4 v = *reinterpret_cast<const float4*>(in + i);  // fault: vector_past_end
    out[threadIdx.x] = v.x + v.y + v.z + v.w;
  }
}

template <bool kFaulty>
__global__ void misaligned_vector(const float* in, float* out) {
  const int i = threadIdx.x * 4 + (kFaulty ? 1 : 4);
  const float4 v = *reinterpret_cast<const float4*>(in + i);  // fault: misaligned_vector
  out[threadIdx.x] = v.x + v.w;
}

template <bool kFaulty>
__global__ void misaligned_shared_double(double* out) {
  __shared__ __align__(16) char raw[1024];
  for (int i = threadIdx.x; i < 256; i += kThreads) reinterpret_cast<int*>(raw)[i] = 0;
  __syncthreads();
  out[threadIdx.x] = *reinterpret_cast<double*>(raw + threadIdx.x * 8 + (kFaulty ? 4 : 0));  // fault: misaligned_shared_double
}

template <bool kFaulty>
__global__ void shared_past_end(int* out) {
  extern __shared__ int tile[];
  tile[threadIdx.x + (kFaulty ? 1 : 0)] = threadIdx.x;  // fault: shared_past_end
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

template <bool kFaulty>
__global__ void shared_read_far_past_end(int* out, int far) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[kFaulty ? threadIdx.x + far : threadIdx.x];  // fault: shared_read_far_past_end
}

template <bool kFaulty>
__global__ void local_past_end(int* out, int n) {
  int values[8];
  for (int i = 0; i < 8; ++i) values[i] = i * n;
  const int at = (threadIdx.x + n) % 8 + (kFaulty ? n * 100000 : 0);
  out[threadIdx.x] = values[at];  // fault: local_past_end
}

template <bool kFaulty>
__global__ void freed_memory(int* out, const int* stale) {
  out[threadIdx.x] = *stale;  // fault: freed_memory
}

__constant__ int constant_table[64] = {1, 2, 3};

// The address of a __constant__ variable came to the kernel as any other.
template <bool kFaulty>
__global__ void write_to_const(int* table, int* out) {
  (kFaulty ? table : out)[threadIdx.x] = constant_table[threadIdx.x];  // fault: write_to_const
}

template <bool kFaulty>
__global__ void unwritten_global(const int* in, int* out) {
  out[threadIdx.x] = kFaulty ? in[threadIdx.x] + 1 : 1;  // fault: unwritten_global
}

template <bool kFaulty>
__global__ void unwritten_shared_to_global(int* out) {
  __shared__ int tile[kThreads];
  if (!kFaulty || threadIdx.x != 5) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];  // fault: unwritten_shared_to_global
}

template <bool kFaulty>
__global__ void unwritten_branch(int* out, int first) {
  __shared__ int flag;
  if (static_cast<int>(threadIdx.x) == (kFaulty ? first + kThreads : first)) flag = first + 7;
  __syncthreads();
  if (flag > 0) {  // fault: unwritten_branch
    atomicAdd(out, 1);
  }
}

template <bool kFaulty>
__global__ void unwritten_index(const int* in, int* out) {
  __shared__ int index[kThreads];
  if (!kFaulty) index[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = in[index[threadIdx.x]];  // fault: unwritten_index
}

// An undefined value that is computed with and then discarded is no fault: the twin does that.
template <bool kFaulty>
__global__ void unwritten_but_discarded(int* out, int n) {
  __shared__ int tile[kThreads];
  if (static_cast<int>(threadIdx.x) < n) tile[threadIdx.x] = 1;
  __syncthreads();
  const int twice = tile[threadIdx.x] * 2;
  out[threadIdx.x] = kFaulty || static_cast<int>(threadIdx.x) < n ? twice : 0;  // fault: unwritten_but_discarded
}

// Three bytes of the word are never written; the twin masks them away.
template <bool kFaulty>
__global__ void unwritten_bytes(unsigned* out) {
  __shared__ unsigned word[kThreads];
  reinterpret_cast<unsigned char*>(word)[threadIdx.x * 4] = 7;
  __syncthreads();
  const unsigned value = *static_cast<volatile unsigned*>(&word[threadIdx.x]);
  out[threadIdx.x] = kFaulty ? value : value & 0xffu;  // fault: unwritten_bytes
}

template <bool kFaulty>
__global__ void unwritten_local(int* out, int n) {
  int values[16];
  for (int i = 0; i < (kFaulty ? n : 16); ++i) values[i] = i;
  out[threadIdx.x] = values[threadIdx.x % 16];  // fault: unwritten_local
}

template <bool kFaulty>
__global__ void atomic_past_end(int* counts, int bins) {
  const int bin = static_cast<int>(threadIdx.x) % (kFaulty ? bins + 1 : bins);
  atomicAdd(counts + bin, 1);  // fault: atomic_past_end
}

class MemoryFaultTest : public FaultTest {};
TEST_P(MemoryFaultTest, IsCaughtAndItsTwinIsSilent) { check(__FILE__); }

// `size` elements that nobody wrote, beside an output.
template <class F>
auto with_unwritten(F f) {
  return [=](bool faulty) {
    const DeviceVector<int> in(kThreads), out(kThreads);
    f(faulty, in.data(), out.data());
  };
}

#define CASE(name, kind, error, launch) FaultCase{#name, kind, launch, error}
#define ZEROS(T, size, kernel, grid, shared, ...) \
  with_zeros<T>(size, [](bool faulty, T* data) { LAUNCH(kernel, grid, kThreads, shared, __VA_ARGS__)(faulty); })

INSTANTIATE_TEST_SUITE_P(
    Corpus, MemoryFaultTest,
    testing::Values(
        CASE(global_read_past_end, "out of bounds", 700, ([](bool faulty) {
               const DeviceVector<int> in(std::vector<int>(kThreads, 1)), out(kThreads);
               LAUNCH(global_read_past_end, 1, kThreads, 0, in.data(), out.data(), kThreads)(faulty);
             })),
        CASE(global_write_past_end, "out of bounds", 700, ZEROS(int, 100, global_write_past_end, 2, 0, data, 100)),
        CASE(global_write_before_begin, "out of bounds", 700, ZEROS(int, 64, global_write_before_begin, 1, 0, data)),
        CASE(null_pointer, "out of bounds", 700, ZEROS(int, 64, null_pointer, 1, 0, data, nullptr)),
        CASE(index_in_bytes, "out of bounds", 700, ZEROS(float, 64, index_in_bytes, 1, 0, data)),
        CASE(vector_past_end, "out of bounds", 700, ([](bool faulty) {
               const DeviceVector<float> in(std::vector<float>(254, 1.0f)), out(kThreads);
               LAUNCH(vector_past_end, 1, kThreads, 0, in.data(), out.data(), 254)(faulty);
             })),
        CASE(misaligned_vector, "misaligned", 716, ([](bool faulty) {
               const DeviceVector<float> in(std::vector<float>(272, 1.0f)), out(kThreads);
               LAUNCH(misaligned_vector, 1, kThreads, 0, in.data(), out.data())(faulty);
             })),
        CASE(misaligned_shared_double, "misaligned", 716, ZEROS(double, 64, misaligned_shared_double, 1, 0, data)),
        CASE(shared_past_end, "out of bounds", 700, ZEROS(int, 64, shared_past_end, 1, kThreads * 4, data)),
        CASE(shared_read_far_past_end, "out of bounds", 700,
             ZEROS(int, 64, shared_read_far_past_end, 1, 0, data, 1 << 20)),
        CASE(local_past_end, "out of bounds", 700, ZEROS(int, 64, local_past_end, 1, 0, data, 3)),
        CASE(freed_memory, "freed memory", 700, ([](bool faulty) {
               const DeviceVector<int> out(kThreads);
               int* stale = nullptr;
               EXPECT_CUDA(cudaMalloc(&stale, 4));
               EXPECT_CUDA(cudaMemset(stale, 0, 4));
               if (faulty) EXPECT_CUDA(cudaFree(stale));
               LAUNCH(freed_memory, 1, kThreads, 0, out.data(), stale)(faulty);
               if (!faulty) EXPECT_CUDA(cudaFree(stale));
             })),
        CASE(write_to_const, "write to constant memory", 700, ([](bool faulty) {
               const DeviceVector<int> out(kThreads);
               void* table = nullptr;
               EXPECT_CUDA(cudaGetSymbolAddress(&table, constant_table));
               LAUNCH(write_to_const, 1, kThreads, 0, static_cast<int*>(table), out.data())(faulty);
             })),
        CASE(unwritten_global, "uninitialised value", 719, with_unwritten([](bool faulty, int* in, int* out) {
               LAUNCH(unwritten_global, 1, kThreads, 0, in, out)(faulty);
             })),
        CASE(unwritten_shared_to_global, "uninitialised value", 719,
             ZEROS(int, 64, unwritten_shared_to_global, 1, 0, data)),
        CASE(unwritten_branch, "uninitialised value", 719, ZEROS(int, 64, unwritten_branch, 1, 0, data, 0)),
        CASE(unwritten_index, "uninitialised value", 719, ZEROS(int, 64, unwritten_index, 1, 0, data, data)),
        CASE(unwritten_but_discarded, "uninitialised value", 719,
             ZEROS(int, 64, unwritten_but_discarded, 1, 0, data, 50)),
        CASE(unwritten_bytes, "uninitialised value", 719, ZEROS(unsigned, 64, unwritten_bytes, 1, 0, data)),
        CASE(unwritten_local, "uninitialised value", 719, ZEROS(int, 64, unwritten_local, 1, 0, data, 7)),
        CASE(atomic_past_end, "out of bounds", 700, ZEROS(int, 10, atomic_past_end, 1, 0, data, 10))),
    fault_name_of);

}  // namespace
}  // namespace longclock::emulator
