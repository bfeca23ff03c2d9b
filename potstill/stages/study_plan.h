// What each kind of study compares: its arms, the models that are measured, and the questions asked of them.
#pragma once

#include <string>
#include <vector>

#include "potstill/recipe/recipe.h"
#include "potstill/stages/study.h"

namespace potstill {

struct StudyPlan {
  std::vector<StudyArm> arms;
  std::vector<std::string> models;  // labels, of the pipeline's stages (stage_of_model)
  std::string until;                // the last stage that an arm needs
};

// Throws Error(kUsage) for an unknown kind or arm, and where the recipe lacks what the kind needs.
StudyPlan plan_study(const StudyOptions& options, const Recipe& recipe);

// "S''" -> "quantize".
std::string stage_of_model(const std::string& label);

// The questions of the kind, answered; the verdict first.
std::vector<StudyFinding> study_findings(const std::string& kind, const std::vector<StudyArm>& arms);

}  // namespace potstill
