#include "potstill/stages/preflight.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/distill/knowledge.h"
#include "potstill/lm/http_client.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/product_rate.h"
#include "potstill/nn/transformer.h"
#include "potstill/quant/consumers.h"
#include "potstill/quant/quantize_model.h"
#include "potstill/recipe/eval_task_file.h"
#include "potstill/recipe/task_file.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// Typical length of a rendered question/answer pair, where the pairs are not there to be counted yet.
constexpr double kTokensOfAPair = 96;
constexpr double kProcessBytes = 250e6;  // LibTorch itself, loaded

ModelPackage open_named(const Recipe& recipe, const char* key, const std::string& value) {
  const fs::path path = recipe.resolve(value);
  if (!fs::exists(path)) {
    throw Error(
        ErrorKind::kIo, recipe.file.string(), fmt::format("{}: '{}' does not exist", key, value),
        "give a Hugging Face folder or a GGUF file; relative paths start at the working or at the recipe's folder");
  }
  return open_model(path);
}

void check_group_size(const Recipe& recipe, const ModelConfig& student) {
  if (recipe.quantize.group_size == "auto" || recipe.quantize.group_size == "channel") return;
  const int64_t group = std::stoll(recipe.quantize.group_size);
  for (const int64_t width : {student.hidden_size, student.q_size(), student.intermediate_size}) {
    if (width % group == 0) continue;
    std::string fitting;
    for (const int64_t size : {256, 128, 64, 32}) {
      if (student.hidden_size % size == 0 && student.q_size() % size == 0 && student.intermediate_size % size == 0) {
        fitting += fmt::format("{}{}", fitting.empty() ? "" : ", ", size);
      }
    }
    throw Error(ErrorKind::kUsage, recipe.file.string(),
                fmt::format("[quantize] group_size {} does not divide the student's width {}", group, width),
                fmt::format("sizes that fit: {}; or 'auto'", fitting.empty() ? "none" : fitting));
  }
}

// What those who shall load the model would refuse, by [quantize] and [export] `for`.
void check_consumers(const Recipe& recipe, const ModelConfig& student) {
  const GridSpec grid = resolve_settings(recipe.quantize, student).grid;
  const ConsumerPlan plan{.bits = grid.bits, .group_size = grid.group_size, .symmetric = grid.symmetric};
  require_consumers(student, plan, recipe.quantize.consumers, recipe.file.string());
  ConsumerPlan exported = plan;
  exported.format = recipe.export_.format;
  require_consumers(student, exported, recipe.export_.consumers, recipe.file.string());
}

void check_prune(const Recipe& recipe, const ModelConfig& source) {
  if (!recipe.prune || recipe.prune->layers < source.num_hidden_layers) return;
  throw Error(
      ErrorKind::kUsage, recipe.file.string(),
      fmt::format("[prune] layers is {} but the model has only {}", recipe.prune->layers, source.num_hidden_layers),
      "ask for fewer layers, or leave the [prune] section out");
}

double num_pairs(const Recipe& recipe) { return static_cast<double>(recipe.synth.pairs); }

double layer_parameters(const ModelConfig& model) {
  const auto hidden = static_cast<double>(model.hidden_size);
  return hidden * static_cast<double>(2 * model.q_size() + 2 * model.kv_size()) +
         3 * hidden * static_cast<double>(model.intermediate_size);
}

double all_layers(const ModelConfig& model) {
  return layer_parameters(model) * static_cast<double>(model.num_hidden_layers);
}

double head_parameters(const ModelConfig& model) {
  return static_cast<double>(model.vocab_size) * static_cast<double>(model.hidden_size);
}

// Half of the peak is what whole stages reach, with their norms, attention and sampling.
void add_seconds(std::vector<StageEstimate>& rows, double flops_per_second) {
  for (auto& row : rows) row.seconds = row.flops / (0.5 * flops_per_second);
}

void print_table(const std::vector<StageEstimate>& rows, at::ScalarType dtype, double flops_per_second) {
  log_info("plan (estimates; this processor multiplies {} matrices at {:.0f} GFLOP/s)", c10::toString(dtype),
           flops_per_second / 1e9);
  log_info("  {:<14} {:>10} {:>10} {:>12}", "stage", "memory", "disk", "time");
  double seconds = 0;
  for (const auto& row : rows) {
    seconds += row.seconds;
    log_info("  {:<14} {:>10} {:>10} {:>12}", row.stage, format_bytes(row.memory_bytes), format_bytes(row.disk_bytes),
             format_duration(row.seconds));
  }
  log_info("  {:<14} {:>10} {:>10} {:>12}", "whole run", "", "", format_duration(seconds));
}

void check_room(const std::vector<StageEstimate>& rows, const fs::path& run_dir) {
  uint64_t disk = 0, memory = 0;
  for (const auto& row : rows) {
    disk += row.disk_bytes;
    memory = std::max(memory, row.memory_bytes);
  }
  const uint64_t free = free_disk_bytes(run_dir);
  if (free < disk) {
    throw Error(ErrorKind::kIo, run_dir.string(),
                fmt::format("the run leaves about {} but {} are free", format_bytes(disk), format_bytes(free)),
                "free some space, or choose another --run-dir");
  }
  if (available_memory_bytes() < memory) {
    log_warning(
        "the run needs about {} of memory at its peak but {} are available; a smaller [train] tokens_per_batch or "
        "--set dtype=bf16 needs less",
        format_bytes(memory), format_bytes(available_memory_bytes()));
  }
}

}  // namespace

std::vector<StageEstimate> estimate_stages(const Recipe& recipe, const ModelConfig& teacher,
                                           const ModelConfig& student) {
  const double tokens = num_pairs(recipe) * kTokensOfAPair;
  const double student_parameters = all_layers(student) + head_parameters(student);
  const double teacher_layers = all_layers(teacher);
  const double activations = static_cast<double>(recipe.train.tokens_per_batch) *
                             static_cast<double>(student.num_hidden_layers) * 4.0 *
                             static_cast<double>(10 * student.hidden_size + 4 * student.intermediate_size);
  const double hessian =
      8.0 * static_cast<double>(student.intermediate_size) * static_cast<double>(student.intermediate_size);
  const double four_bits = all_layers(student) * 4.5 / 8;
  const double calibration = static_cast<double>(recipe.quantize.sequences) * kTokensOfAPair;
  std::vector<StageEstimate> rows;
  const auto add = [&](const char* stage, double memory, double disk, double flops) {
    rows.push_back({stage, static_cast<uint64_t>(kProcessBytes + memory), static_cast<uint64_t>(disk), flops});
  };
  if (recipe.prune) add("prune", 4 * 3 * layer_parameters(teacher), 2 * student_parameters, 2 * teacher_layers * 4000);
  if (recipe.top.pairs.empty()) {
    // About four candidates are written for a pair that is kept, each read again by the critique.
    add("synth", 4 * (teacher_layers + head_parameters(teacher)), 4e3 * num_pairs(recipe),
        16 * (teacher_layers + head_parameters(teacher)) * tokens);
  }
  add("teach", 4 * 2 * layer_parameters(teacher) + 4 * tokens * static_cast<double>(teacher.hidden_size),
      2 * tokens * static_cast<double>(teacher.hidden_size), 2 * teacher_layers * tokens);
  const double training = 4 * student_parameters + 4 * head_parameters(teacher) + activations;
  const double epoch = (6 * all_layers(student) + 6 * head_parameters(student)) * tokens * recipe.train.epochs;
  if (recipe.search) add("search", training, 1e6, epoch * static_cast<double>(recipe.search->trials));
  add("train", training, 1e7, epoch);
  add("merge", 4 * 3 * layer_parameters(student) + 8 * student_parameters, 2 * student_parameters,
      4 * student_parameters * 256);
  add("quantize", 4 * 3 * layer_parameters(student) + 4 * hessian, 3 * (four_bits + 2 * head_parameters(student)),
      2 * 4 * all_layers(student) * calibration);
  add("export", 8 * student_parameters, four_bits + head_parameters(student) * 34 / 32, 4 * student_parameters * 256);
  add("evaluate", training, 1e6, 5 * 2 * student_parameters * tokens);
  add("outliers", 4 * 3 * layer_parameters(student), 1e6, 3 * 2 * student_parameters * 2048);
  return rows;
}

std::vector<StageEstimate> preflight(const Recipe& recipe, const fs::path& run_dir) {
  const bool remote = is_endpoint(recipe.top.teacher);
  if (remote && recipe.teach.teacher_model.empty()) {
    throw Error(ErrorKind::kUsage, recipe.file.string(), "teacher is an endpoint, and teach.teacher_model is not set",
                "name the model as the endpoint does");
  }
  // An endpoint's tokenizer is the one that [teach] names, the student's own as a rule.
  const std::string& here = !remote                          ? recipe.top.teacher
                            : recipe.teach.tokenizer.empty() ? recipe.top.student
                                                             : recipe.teach.tokenizer;
  const ModelPackage teacher = open_named(recipe, remote ? "teach.tokenizer" : "teacher", here);
  const ModelPackage source = open_named(recipe, "student", recipe.top.student);
  if (recipe.top.pairs.empty()) {
    const std::string& data_teacher = recipe.top.data_teacher;
    if (is_endpoint(data_teacher)) {
      if (recipe.synth.teacher_model.empty()) {
        throw Error(ErrorKind::kUsage, recipe.file.string(),
                    "data_teacher is an endpoint, and synth.teacher_model is not set",
                    "name the model as the endpoint does");
      }
    } else if (data_teacher != recipe.top.teacher) {
      open_named(recipe, "data_teacher", data_teacher);
    }
  }
  if (recipe.top.pairs.empty()) {
    SynthConfig config = recipe.synth;
    find_task(recipe.top.task, recipe.file.parent_path(), config);
  } else if (!fs::exists(recipe.resolve(recipe.top.pairs))) {
    throw Error(ErrorKind::kIo, recipe.file.string(), fmt::format("pairs: '{}' does not exist", recipe.top.pairs));
  }
  // A task of the user's own says where its rows are.
  const bool needs_data = !std::ranges::all_of(recipe.evaluate.tasks, is_eval_task_file);
  if (needs_data && !fs::is_directory(recipe.resolve(recipe.evaluate.data.string()))) {
    throw Error(ErrorKind::kIo, recipe.file.string(),
                fmt::format("[evaluate] data: '{}' is not a folder", recipe.evaluate.data.string()),
                "it holds <task>/<split>.jsonl; leave [evaluate] tasks out to evaluate on the held-out pairs alone");
  }
  require_fitting_tokenizer(source, *teacher.tokenizer, teacher.path.string(), recipe.data);
  check_prune(recipe, source.config);
  check_group_size(recipe, source.config);
  check_consumers(recipe, source.config);

  ModelConfig student = source.config;
  if (recipe.prune) {
    student.num_hidden_layers =
        recipe.prune->layers > 0 ? recipe.prune->layers : static_cast<int64_t>(recipe.prune->keep.size());
  }
  auto estimates = estimate_stages(recipe, teacher.config, student);
  check_room(estimates, run_dir);
  const auto dtype = compute_dtype(recipe.top.dtype, at::kCPU);
  const double flops_per_second = measured_flops_per_second(dtype);
  add_seconds(estimates, flops_per_second);
  print_table(estimates, dtype, flops_per_second);
  return estimates;
}

}  // namespace potstill
