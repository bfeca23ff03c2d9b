#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "potstill/eval/student_t.h"
#include "potstill/stages/study_plan.h"

namespace potstill {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

const StudyModel* model_of(const std::vector<StudyArm>& arms, const std::string& arm, const std::string& label) {
  const auto found = std::ranges::find(arms, arm, &StudyArm::name);
  if (found == arms.end()) return nullptr;
  const auto model = std::ranges::find(found->models, label, &StudyModel::label);
  return model == found->models.end() ? nullptr : &*model;
}

// `better` and `worse` say what a positive and a negative difference mean.
StudyFinding difference(const std::string& question, const SeededScores& first, const SeededScores& second,
                        const std::string& better, const std::string& worse) {
  const SeededMean mean = seeded_mean(minus(first, second));
  StudyFinding finding{.question = question,
                       .estimate = 100 * mean.mean,
                       .low = 100 * mean.interval.low,
                       .high = 100 * mean.interval.high,
                       .unit = "points",
                       .answer = {}};
  const std::string n = fmt::format("{} seeds, {} rows", mean.seeds, mean.rows);
  if (std::isnan(finding.low)) {
    finding.answer = fmt::format("{:+.2f} points with one seed, whose scatter is not known", finding.estimate);
  } else if (finding.low <= 0 && finding.high >= 0) {
    finding.answer = fmt::format("no difference shown at {}", n);
  } else {
    finding.answer =
        fmt::format("{} by {:.2f} points at {}", finding.estimate > 0 ? better : worse, std::abs(finding.estimate), n);
  }
  return finding;
}

// KL to the teacher on the held-out pairs, of each seed; empty where it was not measured.
std::vector<double> kl_of(const StudyModel* model) {
  if (model == nullptr) return {};
  const auto found = model->numbers.find("kl");
  return found == model->numbers.end() ? std::vector<double>() : found->second;
}

std::vector<double> by_seed(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> differences;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) differences.push_back(a[i] - b[i]);
  return differences;
}

// Nats of which every seed gives one value.
StudyFinding nats(const std::string& question, const std::vector<double>& differences, const std::string& higher,
                  const std::string& lower) {
  const MeanInterval mean = mean_interval(differences);
  StudyFinding finding{.question = question,
                       .estimate = mean.mean,
                       .low = mean.interval.low,
                       .high = mean.interval.high,
                       .unit = "nats",
                       .answer = {}};
  if (std::isnan(finding.low)) {
    finding.answer = fmt::format("{:+.3f} nats with one seed, whose scatter is not known", finding.estimate);
  } else if (finding.low <= 0 && finding.high >= 0) {
    finding.answer = fmt::format("no difference shown at {} seeds", differences.size());
  } else {
    finding.answer = fmt::format("{} by {:.3f} nats at {} seeds", finding.estimate > 0 ? higher : lower,
                                 std::abs(finding.estimate), differences.size());
  }
  return finding;
}

void add_kl(const std::string& question, const StudyModel* first, const StudyModel* second,
            std::vector<StudyFinding>& findings) {
  const auto differences = by_seed(kl_of(first), kl_of(second));
  if (differences.empty()) return;
  findings.push_back(nats(question, differences, "farther from the teacher", "nearer to the teacher"));
}

// Accuracy before and after quantization: what an arm loses.
struct Drop {
  std::string arm;
  SeededScores lost;  // before - after
};

std::vector<Drop> drops_of(const std::vector<StudyArm>& arms) {
  std::vector<Drop> drops;
  for (const auto& arm : arms) {
    const auto *before = model_of(arms, arm.name, "S'"), *after = model_of(arms, arm.name, "S''");
    if (before != nullptr && after != nullptr) drops.push_back({arm.name, minus(before->correct, after->correct)});
  }
  return drops;
}

StudyFinding drop_finding(const Drop& drop) {
  const SeededScores none = minus(drop.lost, drop.lost);
  return difference(fmt::format("accuracy that {} loses in quantization", drop.arm), drop.lost, none, "it loses",
                    "it gains");
}

void add_drops(const std::vector<StudyArm>& arms, const std::string& first, const std::string& second,
               std::vector<StudyFinding>& findings) {
  const auto drops = drops_of(arms);
  const auto of = [&](const std::string& name) { return std::ranges::find(drops, name, &Drop::arm); };
  const auto a = of(first), b = of(second);
  if (a != drops.end() && b != drops.end()) {
    findings.push_back(difference(fmt::format("loss of {} minus loss of {}", first, second), a->lost, b->lost,
                                  fmt::format("{} loses more", first), fmt::format("{} loses more", second)));
    const SeededRatio ratio = seeded_ratio(a->lost, b->lost);
    StudyFinding finding{.question = fmt::format("loss of {} over loss of {}", first, second),
                         .estimate = ratio.ratio,
                         .low = ratio.interval ? ratio.interval->low : kNone,
                         .high = ratio.interval ? ratio.interval->high : kNone,
                         .unit = "ratio",
                         .answer = {}};
    finding.answer = !ratio.interval
                         ? fmt::format("the loss of {} is too near 0 for a ratio to have an interval", second)
                     : ratio.interval->low > 1  ? fmt::format("{} loses more", first)
                     : ratio.interval->high < 1 ? fmt::format("{} loses less", first)
                                                : std::string("no difference shown");
    findings.push_back(finding);
  }
  for (const auto& drop : drops) findings.push_back(drop_finding(drop));
}

// What quantization adds to the KL, which shows where accuracy on a few hundred rows does not.
void add_kl_drops(const std::vector<StudyArm>& arms, const std::string& first, const std::string& second,
                  std::vector<StudyFinding>& findings) {
  const auto added = [&](const std::string& arm) {
    return by_seed(kl_of(model_of(arms, arm, "S''")), kl_of(model_of(arms, arm, "S'")));
  };
  const auto differences = by_seed(added(first), added(second));
  if (!differences.empty()) {
    findings.push_back(nats(fmt::format("KL added by quantization: {} minus {}", first, second), differences,
                            fmt::format("{} loses more", first), fmt::format("{} loses more", second)));
  }
  for (const auto& arm : arms) {
    if (const auto own = added(arm.name); !own.empty()) {
      findings.push_back(nats(fmt::format("KL added by quantization to {}", arm.name), own, "farther from the teacher",
                              "nearer to the teacher"));
    }
  }
}

// `label` of each arm against that of `against`.
void add_against(const std::vector<StudyArm>& arms, const std::string& label, const std::string& against,
                 std::vector<StudyFinding>& findings) {
  const auto* reference = model_of(arms, against, label);
  if (reference == nullptr) return;
  for (const auto& arm : arms) {
    const auto* model = model_of(arms, arm.name, label);
    if (model == nullptr || arm.name == against) continue;
    findings.push_back(difference(fmt::format("{} of {} against that of {}", label, arm.name, against), model->correct,
                                  reference->correct, fmt::format("{} is better", arm.name),
                                  fmt::format("{} is worse", arm.name)));
  }
}

std::vector<StudyFinding> findings_of_ablation(const std::vector<StudyArm>& arms) {
  std::vector<StudyFinding> findings, kl;
  if (arms.empty()) return findings;
  const auto compare = [&](const char* first, const char* second, const std::string& better, const std::string& worse) {
    const auto *a = model_of(arms, arms[0].name, first), *b = model_of(arms, arms[0].name, second);
    if (a == nullptr || b == nullptr) return;
    findings.push_back(difference(fmt::format("{} against {}", first, second), a->correct, b->correct, better, worse));
    add_kl(fmt::format("KL of {} minus that of {}", first, second), a, b, kl);
  };
  compare("S''", "S1 + GPTQ", "the framework is better than GPTQ alone", "the framework is worse than GPTQ alone");
  compare("S'", "S1", "distillation helps", "distillation hurts");
  compare("S''", "S'", "quantization helps", "quantization costs");
  compare("S1 + GPTQ", "S1", "GPTQ helps", "GPTQ costs");
  compare("S1 + GPTQ", "S1 + RTN", "GPTQ is better than rounding", "GPTQ is worse than rounding");
  findings.insert(findings.end(), kl.begin(), kl.end());
  return findings;
}

std::vector<StudyFinding> findings_of_calibration(const std::vector<StudyArm>& arms) {
  std::vector<StudyFinding> findings, kl;
  for (const int64_t size : {128, 256, 64, 16}) {  // 128 is what the method takes: the verdict
    const auto name = [&](const char* source) { return fmt::format("{} {}", source, size); };
    for (const char* source : {"random", "mixed"}) {
      const auto *own = model_of(arms, name("D_gen"), "S''"), *other = model_of(arms, name(source), "S''");
      if (own == nullptr || other == nullptr) continue;
      findings.push_back(difference(fmt::format("calibration by D_gen against {} text, {} sequences", source, size),
                                    own->correct, other->correct, "D_gen is better",
                                    fmt::format("{} text is better", source)));
      add_kl(fmt::format("KL by D_gen minus that by {} text, {} sequences", source, size), own, other, kl);
    }
  }
  findings.insert(findings.end(), kl.begin(), kl.end());
  return findings;
}

std::vector<StudyFinding> findings_of_quantizer(const std::vector<StudyArm>& arms) {
  std::vector<StudyFinding> findings;
  for (const int64_t group : {64, 32, 128}) {
    add_drops(arms, fmt::format("adamw gptq g{}", group), fmt::format("muon gptq g{}", group), findings);
    if (!findings.empty()) break;  // the losses of all arms are in it
  }
  for (const char* optimizer : {"muon", "adamw"}) {
    for (const int64_t group : {64, 32, 128}) {
      std::vector<StudyArm> alike;
      const std::string beginning = std::string(optimizer) + " ", end = fmt::format(" g{}", group);
      std::ranges::copy_if(arms, std::back_inserter(alike), [&](const StudyArm& arm) {
        return arm.name.starts_with(beginning) && arm.name.ends_with(end);
      });
      add_against(alike, "S''", fmt::format("{} gptq g{}", optimizer, group), findings);
    }
  }
  return findings;
}

// KL on the held-out pairs to the recipe's own teacher, whichever taught.
std::vector<StudyFinding> findings_of_tokenizer(const std::vector<StudyArm>& arms) {
  std::vector<StudyFinding> findings;
  const auto kl = [&](const char* arm, const char* label, const char* other_arm, const char* other_label) {
    const auto *first = model_of(arms, arm, label), *second = model_of(arms, other_arm, other_label);
    add_kl(std::string_view(arm) == other_arm ? fmt::format("KL of {} after training minus before, {}", label, arm)
                                              : fmt::format("KL of {} of {} minus that of {}", label, arm, other_arm),
           first, second, findings);
  };
  kl("misaligned", "S'", "aligned", "S'");
  for (const char* arm : {"aligned, ULD", "other ids, ULD", "fewer merges, ULD"}) kl(arm, "S'", "aligned", "S'");
  kl("other ids, ULD", "S'", "aligned, ULD", "S'");
  for (const auto& arm : arms) kl(arm.name.c_str(), "S'", arm.name.c_str(), "S1");
  add_against(arms, "S'", "aligned", findings);
  return findings;
}

}  // namespace

std::vector<StudyFinding> study_findings(const std::string& kind, const std::vector<StudyArm>& arms) {
  if (kind == "ablation") return findings_of_ablation(arms);
  if (kind == "calibration") return findings_of_calibration(arms);
  if (kind == "quantizer") return findings_of_quantizer(arms);
  if (kind == "tokenizer") return findings_of_tokenizer(arms);
  std::vector<StudyFinding> findings;
  if (kind == "optimizer") {
    add_drops(arms, "adamw", "muon", findings);
    add_against(arms, "S''", "adamw", findings);
    add_against(arms, "S'", "adamw", findings);
    add_kl_drops(arms, "adamw", "muon", findings);
  }
  if (kind == "switch") {
    add_against(arms, "S''", "muon", findings);
    add_against(arms, "S''", "adamw", findings);
    const auto drops = drops_of(arms);
    for (const auto& drop : drops) findings.push_back(drop_finding(drop));
  }
  return findings;
}

}  // namespace potstill
