// Threads of the numeric libraries.
#pragma once

namespace potstill {

// Intra-op threads of LibTorch and OpenMP, for the whole process. The same count gives the same bytes.
void set_num_threads(int count);
int num_threads();

}  // namespace potstill
