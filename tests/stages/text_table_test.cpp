#include "potstill/stages/text_table.h"

#include <gtest/gtest.h>

namespace potstill {
namespace {

TEST(TextTable, AlignsByCharactersAndLeavesEmptyColumnsOut) {
  EXPECT_EQ(text_table({{"model", "KL", "acc", "ms"}, {"S′ é", "0.5", "", "12.0"}, {"S1", "10.25", "", ""}}),
            "model      KL     ms\n"
            "────────────────────\n"
            "S′ é      0.5   12.0\n"
            "S1      10.25      –");
}

}  // namespace
}  // namespace potstill
