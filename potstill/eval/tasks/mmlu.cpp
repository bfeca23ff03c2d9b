#include "potstill/eval/python_text.h"
#include "potstill/eval/task.h"

namespace potstill {
namespace {

std::vector<std::string> tasks_of(std::initializer_list<const char*> subjects) {
  std::vector<std::string> names;
  for (const char* subject : subjects) names.push_back(std::string("mmlu_") + subject);
  return names;
}

}  // namespace

EvalTask mmlu_task() {
  return {.name = "mmlu",
          .folder = "mmlu",
          .split = "test",
          .version = 1.0,
          .metrics = {"acc"},
          .ask =
              [](const Row& row) {
                const std::string subject = replace_all(row.text("subject"), "_", " ");
                auto question =
                    lettered_question(row, strip(row.text("question")), row.texts("choices"), row.integer("answer"));
                question.description =
                    "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
                return question;
              },
          .subtask = [](const Row& row) { return "mmlu_" + row.text("subject"); },
          .fewshot_split = "dev",
          .fewshot_order = FewShotOrder::kFirst};
}

std::vector<EvalTaskGroup> mmlu_groups() {
  return {{.name = "mmlu_stem",
           .alias = "stem",
           .children = tasks_of({"abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
                                 "college_computer_science", "college_mathematics", "college_physics",
                                 "computer_security", "conceptual_physics", "electrical_engineering",
                                 "elementary_mathematics", "high_school_biology", "high_school_chemistry",
                                 "high_school_computer_science", "high_school_mathematics", "high_school_physics",
                                 "high_school_statistics", "machine_learning"})},
          {.name = "mmlu_other",
           .alias = "other",
           .children = tasks_of({"business_ethics", "clinical_knowledge", "college_medicine", "global_facts",
                                 "human_aging", "management", "marketing", "medical_genetics", "miscellaneous",
                                 "nutrition", "professional_accounting", "professional_medicine", "virology"})},
          {.name = "mmlu_social_sciences",
           .alias = "social sciences",
           .children = tasks_of({"econometrics", "high_school_geography", "high_school_government_and_politics",
                                 "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
                                 "human_sexuality", "professional_psychology", "public_relations", "security_studies",
                                 "sociology", "us_foreign_policy"})},
          {.name = "mmlu_humanities",
           .alias = "humanities",
           .children = tasks_of({"formal_logic", "high_school_european_history", "high_school_us_history",
                                 "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
                                 "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
                                 "world_religions"})},
          {.name = "mmlu",
           .alias = "mmlu",
           .children = {"mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"}}};
}

}  // namespace potstill
