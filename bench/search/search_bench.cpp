// Mean best value of potstill's samplers on three functions whose minima are known: prints one JSON line a run,
//   {"function", "sampler", "seed", "best": {"16": …, "32": …, "64": …}, "ms": mean time of the last ten suggestions}
// for bench/search/compare.py, which runs Optuna's samplers on the same functions and puts both side by side.
//   search_bench [--seeds 20] [--trials 64] [--samplers gp,tpe,random]
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <numbers>
#include <string>

#include "potstill/base/rng.h"
#include "potstill/search/gp_sampler.h"
#include "potstill/search/tpe.h"

namespace potstill {
namespace {

// Dixon and Szegö 1978; least value 0.397887.
double branin(const Params& p) {
  using std::numbers::pi;
  const double x = p.at("x"), y = p.at("y");
  const double a = y - 5.1 / (4 * pi * pi) * x * x + 5 / pi * x - 6;
  return a * a + 10 * (1 - 1 / (8 * pi)) * std::cos(x) + 10;
}

// Least value -3.32237.
double hartmann6(const Params& p) {
  static constexpr double kA[4][6] = {
      {10, 3, 17, 3.5, 1.7, 8}, {0.05, 10, 17, 0.1, 8, 14}, {3, 3.5, 1.7, 10, 17, 8}, {17, 8, 0.05, 10, 0.1, 14}};
  static constexpr double kP[4][6] = {{0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886},
                                      {0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991},
                                      {0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650},
                                      {0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381}};
  static constexpr double kAlpha[4] = {1.0, 1.2, 3.0, 3.2};
  double sum = 0;
  for (int i = 0; i < 4; ++i) {
    double inner = 0;
    for (int d = 0; d < 6; ++d) inner += kA[i][d] * std::pow(p.at(fmt::format("x{}", d)) - kP[i][d], 2);
    sum -= kAlpha[i] * std::exp(-inner);
  }
  return sum;
}

// Like a training run's settings: a rate by its logarithm, a share, a whole number, a named choice. Least value 0.
double mixed(const Params& p) {
  static constexpr double kOffset[4] = {0.3, 0.0, 0.5, 0.8};  // of "a", "b", "c", "d"
  const double rate = std::log10(p.at("rate")) + 3.0, share = p.at("share") - 0.7;
  const double depth = (p.at("depth") - 9.0) / 12.0;
  return 0.25 * rate * rate + share * share + depth * depth + 0.5 * rate * share * share +
         0.2 * kOffset[static_cast<size_t>(p.at("kind"))];
}

struct Function {
  std::string name;
  Space space;
  std::function<double(const Params&)> value;
};

std::vector<Function> functions() {
  Space hartmann_space;
  for (int d = 0; d < 6; ++d) hartmann_space[fmt::format("x{}", d)] = FloatDistribution{.low = 0.0, .high = 1.0};
  return {{"branin",
           {{"x", FloatDistribution{.low = -5.0, .high = 10.0}}, {"y", FloatDistribution{.low = 0.0, .high = 15.0}}},
           branin},
          {"hartmann6", hartmann_space, hartmann6},
          {"mixed",
           {{"rate", FloatDistribution{.low = 1e-5, .high = 1e-1, .log = true}},
            {"share", FloatDistribution{.low = 0.0, .high = 1.0}},
            {"depth", IntDistribution{.low = 1, .high = 24}},
            {"kind", CategoricalDistribution{{"a", "b", "c", "d"}}}},
           mixed}};
}

std::unique_ptr<PointSampler> sampler_named(const std::string& name, uint64_t seed) {
  if (name == "gp") return std::make_unique<GpSampler>(GpOptions{.n_startup_trials = 4, .seed = seed});
  if (name == "tpe") return std::make_unique<TpeSampler>(TpeOptions{.n_startup_trials = 10, .seed = seed});
  return std::make_unique<RandomSampler>();
}

void run(const Function& function, const std::string& sampler_name, uint64_t seed, int64_t num_trials) {
  const auto sampler = sampler_named(sampler_name, seed);
  std::vector<PastTrial> trials;
  double best = std::numeric_limits<double>::infinity(), milliseconds = 0;
  std::string curve;
  for (int64_t number = 0; number < num_trials; ++number) {
    Rng rng(seed, fmt::format("search/trial/{}", number));
    const auto start = std::chrono::steady_clock::now();
    PastTrial trial{.number = number, .params = sampler->sample(function.space, trials, number, rng)};
    if (number >= num_trials - 10) {
      milliseconds += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / 10;
    }
    trial.value = function.value(trial.params);
    best = std::min(best, trial.value);
    trials.push_back(std::move(trial));
    const int64_t count = number + 1;
    if (count == 16 || count == 32 || count == 64 || count == num_trials) {
      curve += fmt::format("{}\"{}\": {:.6g}", curve.empty() ? "" : ", ", count, best);
    }
  }
  fmt::print("{{\"function\": \"{}\", \"sampler\": \"{}\", \"seed\": {}, \"best\": {{{}}}, \"ms\": {:.3f}}}\n",
             function.name, sampler_name, seed, curve, milliseconds);
  std::fflush(stdout);
}

}  // namespace
}  // namespace potstill

int main(int argc, char** argv) {
  int64_t seeds = 20, trials = 64;
  std::string samplers = "gp,tpe,random";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--seeds") seeds = std::atoll(argv[i + 1]);
    if (flag == "--trials") trials = std::atoll(argv[i + 1]);
    if (flag == "--samplers") samplers = argv[i + 1];
  }
  for (const auto& function : potstill::functions()) {
    for (const std::string name : {"gp", "tpe", "random"}) {
      if (samplers.find(name) == std::string::npos) continue;
      for (uint64_t seed = 0; seed < static_cast<uint64_t>(seeds); ++seed) {
        potstill::run(function, name, seed, trials);
      }
    }
  }
  return 0;
}
