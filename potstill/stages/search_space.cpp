#include "potstill/stages/search_space.h"

#include <fmt/format.h>

#include "potstill/base/error.h"

namespace potstill {
namespace {

// [] is nothing, [x] a fixed value, [low, high] a range.
void add_range(Space& space, const std::string& name, const std::vector<double>& range, bool log) {
  if (range.empty()) return;
  if (range.size() > 2) {
    throw Error(ErrorKind::kUsage, "search", fmt::format("'{}' has {} numbers", name, range.size()),
                "give [low, high], or one number for a fixed value");
  }
  space[name] = FloatDistribution{.low = range.front(), .high = range.back(), .log = log};
}

template <class T>
void add_choices(Space& space, const std::string& name, const std::vector<T>& choices) {
  if (!choices.empty()) space[name] = CategoricalDistribution{{choices.begin(), choices.end()}};
}

// The optimizer's own settings that [search] can name, and which optimizers have them (all, when none is named).
struct Knob {
  const char* name;
  std::vector<double> SearchConfig::*range;
  const char* optimizer;  // part of its name
};
constexpr Knob kKnobs[] = {{"momentum", &SearchConfig::momentum, "muon"},
                           {"weight_decay", &SearchConfig::weight_decay, ""},
                           {"beta1", &SearchConfig::beta1, "adamw"},
                           {"beta2", &SearchConfig::beta2, "adamw"},
                           {"max_grad_norm", &SearchConfig::max_grad_norm, ""},
                           {"min_lr_ratio", &SearchConfig::min_lr_ratio, ""}};

struct SetNumber {
  const nlohmann::json& values;
  void operator()(const char* name, double& value, const char*, const FieldLimits&) { set(name, value); }
  void operator()(const char* name, int64_t& value, const char*, const FieldLimits&) { set(name, value); }
  template <class T>
  void operator()(const char*, T&, const char*, const FieldLimits&) {}

 private:
  template <class T>
  void set(const char* name, T& value) {
    if (values.contains(name)) value = values[name].get<T>();
  }
};

}  // namespace

Space training_space(const SearchConfig& search, const DistillConfig& train) {
  Space space;
  add_range(space, "alpha", search.alpha, false);
  add_range(space, "temperature", search.temperature, true);
  add_range(space, "lora_dropout", search.lora_dropout, false);
  add_range(space, "warmup_ratio", search.warmup_ratio, false);
  const double rate = train.peak_lr();
  add_range(space, "lr", search.lr.empty() ? std::vector<double>{rate / 5.0, rate * 5.0} : search.lr, true);
  add_choices(space, "rank", search.rank);
  add_choices(space, "lora_alpha_ratio", search.lora_alpha_ratio);
  for (const Knob& knob : kKnobs) {
    if (!(search.*knob.range).empty() && train.optimizer.find(knob.optimizer) == std::string::npos) {
      throw Error(ErrorKind::kUsage, "search",
                  fmt::format("'{}' is searched, which {} has not", knob.name, train.optimizer),
                  "take it out of [search], or change [train] optimizer");
    }
    add_range(space, knob.name, search.*knob.range, false);
  }
  for (const auto& [name, distribution] : space) check_distribution(distribution, fmt::format("search: '{}'", name));
  return space;
}

DistillConfig settings_at(const nlohmann::ordered_json& point, const DistillConfig& train) {
  const double own_ratio = train.lora_alpha / static_cast<double>(train.rank);
  DistillConfig settings = train;
  const nlohmann::json values = point;
  SetNumber visitor{values};
  DistillConfig::fields(settings, visitor);
  settings.lora_alpha = point.value("lora_alpha_ratio", own_ratio) * static_cast<double>(settings.rank);
  // Optimizers in turn have each a default of their own, which one number would replace.
  if (settings.optimizer.find(',') == std::string::npos) settings.lr = settings.peak_lr();
  return settings;
}

nlohmann::ordered_json known_point(const Space& space, const DistillConfig& train) {
  nlohmann::ordered_json known = config_to_json(train);
  known["lr"] = train.peak_lr();
  known["lora_alpha_ratio"] = train.lora_alpha / static_cast<double>(train.rank);
  nlohmann::ordered_json point = nlohmann::ordered_json::object();
  for (const auto& [name, distribution] : space) {
    const nlohmann::json value = known.at(name);
    if (const auto range = numeric_range(distribution)) {
      if (holds(distribution, value.get<double>())) point[name] = value;
      continue;
    }
    for (const auto& choice : std::get<CategoricalDistribution>(distribution).choices) {
      if (choice == value) point[name] = choice;
    }
  }
  return point;
}

nlohmann::ordered_json searched_settings(const DistillConfig& settings, const Space& space) {
  const auto all = config_to_json(settings);
  nlohmann::ordered_json chosen = nlohmann::ordered_json::object();
  for (const char* name : {"alpha", "temperature", "rank", "lora_alpha", "lora_dropout", "lr", "warmup_ratio"}) {
    chosen[name] = all.at(name);
  }
  for (const Knob& knob : kKnobs) {
    if (space.contains(knob.name)) chosen[knob.name] = all.at(knob.name);
  }
  return chosen;
}

DistillConfig with_settings(const nlohmann::json& best, DistillConfig train) {
  if (!best.is_object() || !best.contains("train") || !best["train"].is_object()) {
    throw Error(ErrorKind::kFormat, "best.json", "is not the result of a search: it has no 'train' settings");
  }
  SetNumber visitor{best["train"]};
  DistillConfig::fields(train, visitor);
  check_config(train, "best.json");
  return train;
}

}  // namespace potstill
