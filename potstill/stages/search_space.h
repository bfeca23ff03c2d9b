// What the search varies of the training settings: [search]'s ranges as a space, a point as settings. Free of LibTorch.
#pragma once

#include <nlohmann/json.hpp>

#include "potstill/distill/distill_config.h"
#include "potstill/search/search_config.h"
#include "potstill/search/space.h"

namespace potstill {

// Throws Error(kUsage) for a range that cannot be, and for a knob that [train]'s optimizer has not.
Space training_space(const SearchConfig& search, const DistillConfig& train);

// The settings of a point: `train` with the searched ones replaced; lora_alpha follows from rank and lora_alpha_ratio.
DistillConfig settings_at(const nlohmann::ordered_json& point, const DistillConfig& train);

// [train]'s own settings as a point, where they lie in the space: the known-good point that a search begins with.
nlohmann::ordered_json known_point(const Space& space, const DistillConfig& train);

// Settings under [train]'s names: those that every search changes, and of the optimizer's own those in the space.
nlohmann::ordered_json searched_settings(const DistillConfig& settings, const Space& space = {});
// `train` with the settings of a search artifact's best.json. Throws Error(kFormat) when it is something else.
DistillConfig with_settings(const nlohmann::json& best, DistillConfig train);

}  // namespace potstill
