// SPDX-License-Identifier: Apache-2.0
#include "large_outputs.h"

#include <sys/mman.h>

// From PyTorch 2.11 on; null in 2.10.
extern "C" __attribute__((weak)) AOTITorchError
torch_from_blob(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                int64_t storage_offset, int32_t dtype, int32_t device_type, int32_t device_index,
                AtenTensorHandle* out, int32_t layout, const uint8_t* opaque_metadata,
                int64_t opaque_metadata_size, void (*deleter)(void*, void*), void* deleter_context);

namespace longclock {
namespace {

constexpr uintptr_t kPage = uintptr_t{2} << 20, kLeast = 4 * kPage;

uintptr_t round_up_to_page(uintptr_t value) { return (value + kPage - 1) / kPage * kPage; }

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
  return reinterpret_cast<void*>(first);
}

void unmap_pages(void* pages, void* bytes) { munmap(pages, reinterpret_cast<uintptr_t>(bytes)); }

}  // namespace

void advise_huge_pages(const Tensor& tensor) {
#if defined(MADV_HUGEPAGE)
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t end = begin + static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (end - begin < kLeast) return;
  // Whole pages only: what lies around the tensor keeps the pages it has.
  const uintptr_t first = round_up_to_page(begin), last = end / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // may be refused
#else
  (void)tensor;
#endif
}

Tensor large_zeros(const Tensor& like, int64_t rows, int64_t columns, bool at_once) {
  size_t bytes = 0;
  const bool fits = !__builtin_mul_overflow(rows, columns, &bytes) &&
                    !__builtin_mul_overflow(bytes, like.element_size(), &bytes) &&
                    bytes >= kLeast && torch_from_blob != nullptr;
  bytes = round_up_to_page(bytes);
  void* pages = fits ? map_pages(bytes) : nullptr;
  if (pages == nullptr) return torch::stable::new_zeros(like, {rows, columns});
#if defined(MADV_HUGEPAGE)
  madvise(pages, bytes, MADV_HUGEPAGE);  // may be refused, as may what follows
#endif
#if defined(MADV_POPULATE_WRITE)
  if (at_once) madvise(pages, bytes, MADV_POPULATE_WRITE);
#endif
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  auto* context = reinterpret_cast<void*>(bytes);
  int32_t dtype = 0;
  AtenTensorHandle zeros = nullptr;
  AOTITorchError error = aoti_torch_get_dtype(like.get(), &dtype);
  if (error == AOTI_TORCH_SUCCESS) {
    error = torch_from_blob(pages, 2, sizes, strides, 0, dtype, aoti_torch_device_type_cpu(), -1,
                            &zeros, aoti_torch_layout_strided(), nullptr, 0, &unmap_pages, context);
  }
  if (error != AOTI_TORCH_SUCCESS) {
    unmap_pages(pages, context);
    return torch::stable::new_zeros(like, {rows, columns});
  }
  return Tensor(zeros);
}

}  // namespace longclock
