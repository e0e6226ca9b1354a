// SPDX-License-Identifier: Apache-2.0
#include "large_outputs.h"

#include <sys/mman.h>

namespace longclock {

void advise_huge_pages(const Tensor& tensor, bool at_once) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20, kLeast = 4 * kPage;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t end = begin + static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  // Whole pages only: what lies around the tensor keeps the pages it has.
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (end - begin < kLeast) return;
  auto* pages = reinterpret_cast<void*>(first);
  madvise(pages, last - first, MADV_HUGEPAGE);  // may be refused, as may what follows
#if defined(MADV_POPULATE_WRITE)
  if (at_once) madvise(pages, last - first, MADV_POPULATE_WRITE);
#endif
#else
  (void)tensor, (void)at_once;
#endif
}

}  // namespace longclock
