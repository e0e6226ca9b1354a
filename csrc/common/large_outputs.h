// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "checks.h"

namespace longclock {

// An output with more elements than this, 8 MB, is written past the caches: the second level does
// not hold it.
constexpr int64_t kStreamElements = int64_t{1} << 21;

// Asks the system for huge pages behind a large tensor that is about to be written. Fresh memory
// comes page by page as it is first touched: 20,000 times for 82 MB, which costs more than the
// kernel that writes it.
void advise_huge_pages(const Tensor& tensor);

// Zeros [rows, columns] of the dtype of `like`, on the CPU. Large ones are a mapping of their own,
// of huge pages that the system clears: no dearer than to clear memory that was used before, and
// the heap, from which PyTorch takes its other gradients of the size, does not grow and shrink with
// each training step. (Such a storage cannot be resized.) `at_once`: this thread fetches the pages
// now. In a virtual machine two threads that meet fresh pages at the same time can hold each other
// up, ten times as long as one takes; of many threads each fetches what it writes.
Tensor large_zeros(const Tensor& like, int64_t rows, int64_t columns, bool at_once);

}  // namespace longclock
