// POTSTILL_CHECK: an invariant of our own code. It never guards input: that is what Error is for.
#pragma once

#include <stdexcept>

#define POTSTILL_STRINGIFY_(x) #x
#define POTSTILL_STRINGIFY(x) POTSTILL_STRINGIFY_(x)
#define POTSTILL_CHECK(condition)                                                                          \
  do {                                                                                                     \
    if (!(condition))                                                                                      \
      throw std::logic_error(__FILE__ ":" POTSTILL_STRINGIFY(__LINE__) ": broken invariant: " #condition); \
  } while (false)
