// Threads over ranges of work.
#pragma once

#include <stdint.h>

namespace lk {

using RangeFunction = void (*)(void* context, int64_t first, int64_t last);

// Call f on [0, count) cut into at most `threads` contiguous ranges, and wait.
// The calling thread takes part. If another call has the pool, or no thread
// can be started, the caller does all of it.
void parallel_for(int threads, int64_t count, RangeFunction f, void* context);

}  // namespace lk
