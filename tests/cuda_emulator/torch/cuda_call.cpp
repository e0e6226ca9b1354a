// SPDX-License-Identifier: Apache-2.0
// CudaCall for emulated launches: the device is the CPU, and kernels may touch the memory of the
// tensors of their call and nothing else, inputs only to read.
#include "common/cuda_call.h"

#include <algorithm>
#include <string>
#include <vector>

#include "../emulator.h"
#include "longclock/common/device.h"
#include "longclock/common/grid.h"

namespace longclock {

struct CudaCall::State {
  struct Range {
    uint64_t begin, end;
  };
  const char* op;
  const char* argument;  // whose device is used
  std::vector<Range> read, written;
  std::vector<std::string> checked;  // arguments whose device was compared
};

// A grid may be smaller here than on any device.
int64_t most_blocks() { return emulator::options().blocks; }
// And a device another one, where a test takes another profile, or as many multiprocessors.
int current_device(int* device) {
  const emulator::Options& options = emulator::options();
  *device = options.sm + 1000 * static_cast<int>(options.multiprocessors);
  return 0;
}

namespace {

bool on_cpu(const Tensor& tensor) { return tensor.is_cpu(); }

// From the first byte of a strided tensor to its last.
std::pair<uint64_t, uint64_t> extent(const Tensor& tensor) {
  int64_t elements = tensor.numel() == 0 ? 0 : 1;
  for (int64_t d = 0; d < tensor.dim() && elements != 0; ++d)
    elements += (tensor.size(d) - 1) * tensor.stride(d);
  const auto begin = reinterpret_cast<uint64_t>(tensor.const_data_ptr());
  return {begin, begin + static_cast<uint64_t>(elements) * tensor.element_size()};
}

thread_local std::vector<std::vector<std::string>> calls;  // what they checked

void declare(uint64_t begin, uint64_t end, bool read_only, bool undefined) {
  emulator::declare_memory(reinterpret_cast<const void*>(begin), end - begin, read_only, undefined);
}

}  // namespace

CudaCall::CudaCall(const char* op, const char* argument, const Tensor& tensor)
    : state_(std::make_unique<State>(State{op, argument, {}, {}, {op}})) {
  check_device(argument, tensor);
}

CudaCall::~CudaCall() {
  calls.push_back(std::move(state_->checked));
  for (const auto& ranges : {state_->read, state_->written}) {
    for (const State::Range& range : ranges)
      emulator::forget_memory(reinterpret_cast<const void*>(range.begin));
  }
}

CudaStream CudaCall::stream() const { return emulator::launch_stream(); }

void CudaCall::check_device(const char* argument, const Tensor& tensor) const {
  state_->checked.push_back(argument);
  check_defined(state_->op, argument, tensor);
  check(on_cpu(tensor), state_->op, ": ", argument, " must be on the device of ", state_->argument,
        ", the emulated one, whose tensors are on the CPU; move it there with .to()");
}

// Inputs may be views of one tensor: ranges that overlap are one.
void CudaCall::reads(const Tensor& tensor) {
  auto [begin, end] = extent(tensor);
  if (begin == end) return;
  std::erase_if(state_->read, [&, &b = begin, &e = end](const State::Range& known) {
    if (known.end <= b || e <= known.begin) return false;
    emulator::forget_memory(reinterpret_cast<const void*>(known.begin));
    b = std::min(b, known.begin);
    e = std::max(e, known.end);
    return true;
  });
  state_->read.push_back({begin, end});
  declare(begin, end, /*read_only=*/true, /*undefined=*/false);
}

void CudaCall::writes(const Tensor& tensor) {
  const auto [begin, end] = extent(tensor);
  if (begin == end) return;
  state_->written.push_back({begin, end});
  declare(begin, end, /*read_only=*/false, /*undefined=*/true);
}

void CudaCall::updates(const Tensor& tensor) {
  const auto [begin, end] = extent(tensor);
  if (begin == end) return;
  state_->written.push_back({begin, end});
  declare(begin, end, /*read_only=*/false, /*undefined=*/false);
}

// The reports tell what cuda_error_text cannot.
void CudaCall::check_launch(int error) const {
  if (error == 0) return;
  check<std::runtime_error>(false, "longclock::", state_->op, " failed with CUDA error ", error,
                            ": ", cuda_error_text(error));
}

}  // namespace longclock

extern "C" const char* longclock_emulator_take_checked() {
  static thread_local std::string json;
  json.assign(1, '[');
  for (const auto& call : longclock::calls) {
    json += json.size() > 1 ? ",[" : "[";
    for (const std::string& name : call) {
      json += (json.back() == '[' ? "\"" : ",\"") + name + "\"";
    }
    json += "]";
  }
  longclock::calls.clear();
  json += "]";
  return json.c_str();
}
