// SPDX-License-Identifier: Apache-2.0
#include "large_outputs.h"

#include <sys/mman.h>

namespace longclock {

void advise_huge_pages(const Tensor& tensor) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20, kLeast = 4 * kPage;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t end = begin + static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  // Whole pages only: what lies around the tensor keeps the pages it has.
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (end - begin < kLeast) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // may be refused
#else
  (void)tensor;
#endif
}

}  // namespace longclock
