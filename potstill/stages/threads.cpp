#include "potstill/stages/threads.h"

#include <ATen/Parallel.h>

namespace potstill {

void set_num_threads(int count) { at::set_num_threads(count); }
int num_threads() { return at::get_num_threads(); }

}  // namespace potstill
