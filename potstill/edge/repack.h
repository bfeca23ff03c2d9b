// Weights copied out of the mapped file at the start: into the order that the processor's products read best
// (kernels/lane_order.h), and into huge pages, for a processor that walks through its memory in pages of 4 KB spends a
// part of its time on looking them up. It costs the copy's time, and the pages are this process's own.
#pragma once

#include <cstdint>

#include "potstill/edge/edge_weights.h"
#include "potstill/edge/thread_pool.h"

namespace potstill::edge {

// Whether a long-lived process gains by it: there is memory for the weights beside the file's own pages, and products
// that read the other order or, for weights of a gigabyte and more, a system that gives huge pages to those who ask.
bool repacking_pays(uint64_t weight_bytes);

// Copies every matrix and lets go of the file's pages as it goes, so that memory stays at one copy. No result changes
// by a bit. Throws Error(kMemory).
void repack(EdgeWeights& weights, ThreadPool& pool);

}  // namespace potstill::edge
