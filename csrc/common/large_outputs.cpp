// SPDX-License-Identifier: Apache-2.0
#include "common/large_outputs.h"

#include <sys/mman.h>

#include <cstring>
#include <mutex>
#include <utility>

#include "common/parallel.h"
#include "longclock/common/fork.h"

// From PyTorch 2.11 on; null in 2.10.
extern "C" __attribute__((weak)) AOTITorchError
torch_from_blob(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                int64_t storage_offset, int32_t dtype, int32_t device_type, int32_t device_index,
                AtenTensorHandle* out, int32_t layout, const uint8_t* opaque_metadata,
                int64_t opaque_metadata_size, void (*deleter)(void*, void*), void* deleter_context);

namespace longclock {
namespace {

constexpr uintptr_t kPage = uintptr_t{2} << 20, kMin = 4 * kPage;

uintptr_t round_up_to_page(uintptr_t value) { return (value + kPage - 1) / kPage * kPage; }

// For the whole huge pages in there: what lies around them keeps the pages it has.
void advise_huge_pages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = round_up_to_page(begin), last = (begin + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // may be refused
#else
  (void)memory, (void)bytes;
#endif
}

// Zeroed pages, the first of which begins a huge one; null where the system has none.
void* map_pages(size_t bytes) {
  void* mapped =
      mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t first = round_up_to_page(begin);
  if (first > begin) munmap(mapped, first - begin);
  if (begin + kPage > first) {
    munmap(reinterpret_cast<void*>(first + bytes), begin + kPage - first);
  }
  void* pages = reinterpret_cast<void*>(first);
  advise_huge_pages(pages, bytes);
  return pages;
}

void unmap_pages(void* pages, void* bytes) { munmap(pages, reinterpret_cast<uintptr_t>(bytes)); }

// The last pages that were given back, for the next output of as many bytes.
class KeptPages {
 public:
  // Null where none of the size are kept.
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    return bytes == bytes_ ? std::exchange(pages_, nullptr) : nullptr;
  }
  void give(void* pages, size_t bytes) {
    if (bytes <= kMax) {
      const std::lock_guard lock(mutex_);
      std::swap(pages_, pages);
      std::swap(bytes_, bytes);
    }
    if (pages != nullptr) munmap(pages, bytes);
  }

 private:
  static constexpr size_t kMax = size_t{128} << 20;
  GlobalMutex mutex_;
  void* pages_ = nullptr;
  size_t bytes_ = 0;
};

KeptPages kept_pages;

void keep_pages(void* pages, void* bytes) {
  kept_pages.give(pages, reinterpret_cast<uintptr_t>(bytes));
}

// Bytes of whole huge pages for so many elements of the dtype of `like`; 0 where the output is not
// large.
size_t large_bytes(const Tensor& like, Sizes sizes) {
  size_t bytes = like.element_size();
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return 0;
  }
  return bytes >= kMin ? round_up_to_page(bytes) : 0;
}

// A contiguous tensor in pages of ours, which the deleter gets with it; null on failure, and where
// there are none.
AtenTensorHandle tensor_in(void* pages, size_t bytes, void (*deleter)(void*, void*),
                           const Tensor& like, Sizes sizes) {
  if (pages == nullptr) return nullptr;
  const auto strides = contiguous_strides(sizes).value();  // which fit, as large_bytes() do
  auto* context = reinterpret_cast<void*>(bytes);
  int32_t dtype = 0;
  AtenTensorHandle tensor = nullptr;
  if (aoti_torch_get_dtype(like.get(), &dtype) == AOTI_TORCH_SUCCESS &&
      torch_from_blob(pages, static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), 0,
                      dtype, aoti_torch_device_type_cpu(), -1, &tensor, aoti_torch_layout_strided(),
                      nullptr, 0, deleter, context) == AOTI_TORCH_SUCCESS) {
    return tensor;
  }
  deleter(pages, context);
  return nullptr;
}

}  // namespace

Tensor large_empty(const Tensor& like, Sizes sizes) {
  const size_t bytes = large_bytes(like, sizes);
  const bool own = bytes > 0 && torch_from_blob != nullptr;
  void* pages = own ? kept_pages.take(bytes) : nullptr;
  if (own && pages == nullptr) pages = map_pages(bytes);
  const AtenTensorHandle tensor = tensor_in(pages, bytes, &keep_pages, like, sizes);
  if (tensor != nullptr) return Tensor(tensor);
  Tensor empty = make_empty(like, sizes);
  if (bytes > 0) advise_huge_pages(empty.mutable_data_ptr(), empty.numel() * like.element_size());
  return empty;
}

Tensor large_zeros(const Tensor& like, int64_t rows, int64_t columns, bool at_once) {
  const int64_t sizes[] = {rows, columns};
  const size_t bytes = large_bytes(like, sizes);
  void* pages = bytes > 0 && torch_from_blob != nullptr ? map_pages(bytes) : nullptr;
#if defined(MADV_POPULATE_WRITE)
  if (pages != nullptr && at_once) madvise(pages, bytes, MADV_POPULATE_WRITE);  // may be refused
#endif
  const AtenTensorHandle mapped = tensor_in(pages, bytes, &unmap_pages, like, sizes);
  if (mapped != nullptr) return Tensor(mapped);
  Tensor zeros = make_empty(like, sizes);
  char* to = static_cast<char*>(zeros.mutable_data_ptr());
  const int64_t size = zeros.element_size();
  parallel_elements(zeros.numel(), [&](int64_t begin, int64_t end) {
    std::memset(to + begin * size, 0, static_cast<size_t>((end - begin) * size));
  });
  return zeros;
}

}  // namespace longclock
