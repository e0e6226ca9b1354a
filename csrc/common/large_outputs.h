// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "checks.h"

namespace longclock {

// An output with more elements than this, 8 MB, is written past the caches: the second level does
// not hold it.
constexpr int64_t kStreamElements = int64_t{1} << 21;

// Asks the system for huge pages behind a large tensor that is about to be written. Fresh memory
// comes page by page as it is first touched: 20,000 times for 82 MB, which costs more than the
// kernel that writes it. `at_once`: this thread fetches them all now. In a virtual machine two
// threads that meet fresh pages at the same time can hold each other up, ten times as long as one
// takes; of many threads each fetches what it writes.
void advise_huge_pages(const Tensor& tensor, bool at_once = false);

}  // namespace longclock
