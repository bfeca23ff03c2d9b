// Weights copied out of the mapped file into huge pages: a processor that walks through gigabytes in pages of 4 KB
// spends a part of its time on looking them up. Costs the copy's time at the start, and the pages are this process's
// own.
#pragma once

#include <cstdint>

#include "potstill/edge/edge_weights.h"
#include "potstill/edge/thread_pool.h"

namespace potstill::edge {

// Whether a long-lived process gains by it: weights of a gigabyte or more, memory for them beside the file's own pages,
// and a system that gives huge pages to those who ask.
bool huge_pages_pay(uint64_t weight_bytes);

// Copies every matrix and lets go of the file's pages as it goes, so that memory stays at one copy. Where the system
// has no huge pages to give the copy lies in small ones: slower, never wrong. Throws Error(kMemory).
void move_to_huge_pages(EdgeWeights& weights, ThreadPool& pool);

}  // namespace potstill::edge
