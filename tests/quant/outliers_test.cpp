#include "potstill/quant/outliers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/small_model.h"

#include "potstill/base/rng.h"

namespace potstill {
namespace {

at::Tensor normal(int64_t rows, int64_t columns, double shift = 0.0) {
  Rng rng(4, "normal");
  auto x = at::empty({rows, columns});
  float* values = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) values[i] = static_cast<float>(rng.normal() + shift);
  return x;
}

// scipy.stats.kurtosis' definition, on all entries, in double.
double kurtosis_ref(const at::Tensor& x) {
  const auto d = x.to(at::kDouble) - x.to(at::kDouble).mean();
  const double variance = d.square().mean().item<double>();
  return d.pow(4).mean().item<double>() / (variance * variance) - 3;
}

TEST(Outliers, EqualTheirDefinitionsHoweverTheyAreBatched) {
  auto x = normal(600, 48, 5.0);  // a mean far from zero costs no digits
  x.select(1, 7).mul_(30);
  x[5][11] = 400.0f;
  for (const int64_t batch : {600, 64}) {
    OutlierAccumulator accumulator;
    for (int64_t begin = 0; begin < 600; begin += batch)
      accumulator.add(x.slice(0, begin, std::min<int64_t>(begin + batch, 600)));
    const auto found = accumulator.finish(3, "x");
    EXPECT_EQ(found.tokens, 600);
    EXPECT_EQ(found.channels, 48);
    EXPECT_NEAR(found.excess_kurtosis, kurtosis_ref(x), 1e-3 * kurtosis_ref(x));
    double token_kurtosis = 0, ratio = 0;
    for (int64_t t = 0; t < 600; ++t) {
      token_kurtosis += kurtosis_ref(x[t]) / 600;
      ratio += (x[t].abs().max() / x[t].abs().median()).item<double>() / 600;
    }
    EXPECT_NEAR(found.token_kurtosis, token_kurtosis, 1e-3 * std::fabs(token_kurtosis));
    EXPECT_NEAR(found.token_max_to_median, ratio, 1e-4 * ratio);
    EXPECT_FLOAT_EQ(static_cast<float>(found.max_abs), 400.0f);
    EXPECT_EQ(found.largest_channels[0], 11);
    EXPECT_EQ(found.largest_channels[1], 7);
    const auto reach = (x - x.mean()).abs().amax(0);
    const double sigma = x.to(at::kDouble).std(/*unbiased=*/false).item<double>();
    EXPECT_EQ(found.channels_above_6_sigma, (reach > 6 * sigma).sum().item<int64_t>());
  }
}

TEST(Outliers, NormalNumbersHaveNone) {
  OutlierAccumulator accumulator;
  accumulator.add(normal(2000, 64));
  const auto found = accumulator.finish(0, "x");
  EXPECT_NEAR(found.excess_kurtosis, 0.0, 0.05);  // sqrt(24 / 128000) = 0.014
  EXPECT_EQ(found.channels_above_6_sigma, 0);
  EXPECT_EQ(found.token_above_6_sigma, 0.0);
  EXPECT_NEAR(found.quantile_999, 3.29, 0.15);
}

TEST(Outliers, WeightsNormsEqualTheSingularValues) {
  auto weight = normal(40, 96);
  weight[3].mul_(4);
  const auto found = measure_weight("w", weight);
  const auto singular = std::get<1>(at::linalg_svd(weight.to(at::kDouble), /*full_matrices=*/false));
  const double largest = singular[0].item<double>();
  EXPECT_NEAR(found.spectral_norm, largest, 1e-4 * largest);
  EXPECT_NEAR(found.stable_rank, singular.square().sum().item<double>() / (largest * largest),
              1e-3 * found.stable_rank);
  EXPECT_NEAR(found.excess_kurtosis, kurtosis_ref(weight), 1e-3 * kurtosis_ref(weight));
  double crest = 0.0;
  for (int64_t row = 0; row < 40; ++row) {
    for (const auto& group : {weight[row].slice(0, 0, 64), weight[row].slice(0, 64, 96)}) {
      crest += (group.abs().max() / group.square().mean().sqrt()).item<double>() / 80;
    }
  }
  EXPECT_NEAR(found.crest_factor, crest, 1e-4 * crest);
  EXPECT_EQ(measure_weight("zero", at::zeros({4, 64})).spectral_norm, 0.0);
}

TEST(Outliers, OfAModelCoverEveryLayerAndTensor) {
  const TempFolder folder;
  const auto model = write_model(folder / "model");
  const auto report = measure_outliers(model, random_corpus(6, 40), {});
  EXPECT_EQ(report.activations.size(), static_cast<size_t>(5 * kLayers));
  EXPECT_EQ(report.weights.size(), static_cast<size_t>(7 * kLayers));
  for (const auto& row : report.activations) {
    EXPECT_EQ(row.tokens, 240);
    EXPECT_TRUE(std::isfinite(row.excess_kurtosis));
    EXPECT_GE(row.channel_max_to_median, 1.0);
  }
  EXPECT_EQ(report.activations[3].channels, kIntermediate);
  const auto weights_alone = measure_outliers(model, {}, {});
  EXPECT_TRUE(weights_alone.activations.empty());
  EXPECT_EQ(weights_alone.weights.size(), static_cast<size_t>(7 * kLayers));
}

}  // namespace
}  // namespace potstill
