// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/checks.h"

namespace longclock {

// A contiguous tensor of the dtype of `like`, on the CPU, for a kernel to write. Fresh memory comes
// page by page as it is first touched, and must be cleared: 82 MB cost more than the kernel that
// writes them. So large ones are a mapping of their own, of huge pages, and the last of these that
// was freed, up to 128 MB, is kept for the next one of its size, which a training step will want.
// (Such a storage cannot be resized. With PyTorch 2.10 the heap is asked for huge pages.)
Tensor large_empty(const Tensor& like, Sizes sizes);

// Zeros [rows, columns] of the dtype of `like`, on the CPU. Large ones are a mapping of their own,
// of huge pages that the system clears: no dearer than to clear memory that was used before, and
// the heap, from which PyTorch takes its other gradients of the size, does not grow and shrink with
// each training step. (Such a storage cannot be resized.) `at_once`: this thread fetches the pages
// now. In a virtual machine two threads that meet fresh pages at the same time can hold each other
// up, ten times as long as one takes; of many threads each fetches what it writes.
Tensor large_zeros(const Tensor& like, int64_t rows, int64_t columns, bool at_once);

}  // namespace longclock
