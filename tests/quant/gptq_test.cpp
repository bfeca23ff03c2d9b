#include "potstill/quant/gptq.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/quant/lcg.h"

#include "potstill/base/dtype.h"
#include "potstill/base/error.h"
#include "potstill/quant/column_kernels.h"

namespace potstill {
namespace {

struct Layer {
  at::Tensor weight;   // [O, I]
  at::Tensor inputs;   // [T, I]
  at::Tensor hessian;  // [I, I] double
};

Layer draw_layer(uint64_t seed, int64_t O, int64_t I, int64_t T) {
  Lcg lcg(seed);
  Layer layer{at::empty({O, I}), at::empty({T, I}), {}};
  float* weight = layer.weight.mutable_data_ptr<float>();
  for (int64_t i = 0; i < O * I; ++i) {
    const double value = lcg.uniform();
    weight[i] = static_cast<float>(value * std::fabs(lcg.uniform()));
  }
  std::vector<double> gains;
  for (int64_t i = 0; i < I; ++i) gains.push_back(1.0 + 6.0 * std::pow(lcg.uniform(), 4));
  float* inputs = layer.inputs.mutable_data_ptr<float>();
  for (int64_t t = 0; t < T; ++t) {
    double previous = 0.0;
    for (int64_t i = 0; i < I; ++i) {
      previous = 0.6 * previous + lcg.uniform();
      inputs[t * I + i] = static_cast<float>(gains[static_cast<size_t>(i)] * previous);
    }
  }
  const auto x = layer.inputs.to(at::kDouble);
  layer.hessian = at::mm(x.t(), x) / static_cast<double>(T);
  return layer;
}

double output_error(const Layer& layer, const at::Tensor& quantized) {
  const auto x = layer.inputs.to(at::kDouble).t();
  const auto w = layer.weight.to(at::kDouble);
  return (at::mm(w - quantized.to(at::kDouble), x).norm() / at::mm(w, x).norm()).item<double>();
}

GridSpec grid(int64_t group_size, ClipRule clip, bool symmetric = true) {
  return {.group_size = group_size, .symmetric = symmetric, .clip = clip};
}

nlohmann::json golden() {
  std::ifstream file(POTSTILL_SOURCE_DIR "/tests/golden/quant/gptq.json");
  return nlohmann::json::parse(file);
}

// Every order, clip rule and kind of grid: the codes and scales of a float64 GPTQ that was written from the paper.
TEST(GptqGolden, CodesAndScalesEqualAStraightforwardImplementation) {
  const auto reference = golden();
  const int64_t O = reference["shape"][0], I = reference["shape"][1];
  const Layer layer = draw_layer(reference["seed"], O, I, reference["tokens"]);
  for (const auto& expected : reference["cases"]) {
    const std::string what = expected["method"].get<std::string>() + " " + expected["order"].get<std::string>() + " " +
                             expected["clip"].get<std::string>();
    SCOPED_TRACE(what);
    const GridSpec spec =
        grid(reference["group_size"], parse_clip_rule(expected["clip"].get<std::string>()), expected["symmetric"]);
    QuantizedWeight quantized;
    if (expected["method"] == "rtn") {
      quantized = round_to_nearest(layer.weight, spec);
    } else {
      const QuantOrder order = parse_quant_order(expected["order"].get<std::string>());
      const auto factor = factorize_hessian(layer.hessian, order, spec.group_size, reference["damp"]);
      quantized = gptq_quantize(layer.weight, factor, spec, order).weight;
    }
    const int8_t* codes = quantized.codes.const_data_ptr<int8_t>();
    for (int64_t o = 0; o < O; ++o) {
      std::string row;
      for (int64_t i = 0; i < I; ++i) row += "0123456789abcdef"[codes[o * I + i] + 8];
      EXPECT_EQ(row, expected["codes"][static_cast<size_t>(o)].get<std::string>()) << "row " << o;
      for (int64_t g = 0; g < quantized.scales.size(1); ++g) {
        EXPECT_EQ(quantized.scales[o][g].item<double>(), expected["scales"][o][g].get<double>()) << o << ", " << g;
        EXPECT_EQ(quantized.zeros[o][g].item<int>(), expected["zeros"][o][g].get<int>()) << o << ", " << g;
      }
    }
    EXPECT_NEAR(output_error(layer, dequantize(quantized)), expected["relative_output_error"].get<double>(), 1e-6);
  }
}

// A diagonal H couples no columns: there is nothing to make up for.
TEST(Gptq, EqualsRoundingWhenTheHessianIsDiagonal) {
  const Layer layer = draw_layer(1, 20, 64, 8);
  const auto diagonal = at::diag(at::linspace(0.5, 4.0, 64, at::kDouble));
  for (const auto order : {QuantOrder::kNone, QuantOrder::kStatic, QuantOrder::kGroupAware}) {
    const auto factor = factorize_hessian(diagonal, order, 32, 0.01);
    const auto gptq = gptq_quantize(layer.weight, factor, grid(32, ClipRule::kNone), order);
    const auto rtn = round_to_nearest(layer.weight, grid(32, ClipRule::kNone));
    EXPECT_TRUE(at::equal(gptq.weight.codes, rtn.codes));
    EXPECT_TRUE(at::equal(gptq.weight.scales, rtn.scales));
  }
}

// W − Q = E U, so the loss that the loop adds up is the damped quadratic form of the error.          gptq.md section 4
TEST(Gptq, LossEqualsTheDampedQuadraticFormOfTheError) {
  const Layer layer = draw_layer(2, 48, 192, 1024);
  const auto factor = factorize_hessian(layer.hessian, QuantOrder::kStatic, 64, 0.01);
  const auto result = gptq_quantize(layer.weight, factor, grid(64, ClipRule::kHessian), QuantOrder::kStatic);
  const auto damped = layer.hessian + at::eye(192, at::kDouble) * (0.01 * layer.hessian.diagonal().mean());
  const auto error = (layer.weight - dequantize(result.weight)).to(at::kDouble);
  const double expected = 0.5 * (at::mm(error, damped) * error).sum().item<double>();
  EXPECT_NEAR(result.loss, expected, 1e-4 * expected);  // fp32 loop: a few hundred updates of 2⁻²⁴ each
}

TEST(Gptq, BlockSizeChangesRoundingOnly) {
  const Layer layer = draw_layer(3, 32, 256, 1024);
  const auto factor = factorize_hessian(layer.hessian, QuantOrder::kStatic, 32, 0.01);
  const GridSpec spec = grid(32, ClipRule::kHessian);
  const auto one = gptq_quantize(layer.weight, factor, spec, QuantOrder::kStatic, 32).weight;
  const auto other = gptq_quantize(layer.weight, factor, spec, QuantOrder::kStatic, 256).weight;
  // a code on the edge may fall to the other side and move those after it
  EXPECT_GT((one.codes == other.codes).to(at::kDouble).mean().item<double>(), 0.99);
  EXPECT_NEAR(output_error(layer, dequantize(one)), output_error(layer, dequantize(other)), 1e-3);
}

TEST(Gptq, BeatsRoundingOnCorrelatedInputs) {
  const Layer layer = draw_layer(4, 64, 256, 2048);
  const double rtn = output_error(layer, dequantize(round_to_nearest(layer.weight, grid(64, ClipRule::kNone))));
  double previous = rtn;
  for (const auto clip : {ClipRule::kNone, ClipRule::kHessian}) {
    const auto factor = factorize_hessian(layer.hessian, QuantOrder::kStatic, 64, 0.01);
    const auto result = gptq_quantize(layer.weight, factor, grid(64, clip), QuantOrder::kStatic);
    const double error = output_error(layer, dequantize(result.weight));
    EXPECT_LT(error, 0.95 * previous);
    previous = error;
  }
}

TEST(Gptq, RowsDoNotSeeEachOther) {
  const Layer layer = draw_layer(5, 40, 128, 512);
  const auto factor = factorize_hessian(layer.hessian, QuantOrder::kStatic, 64, 0.01);
  const GridSpec spec = grid(64, ClipRule::kHessian);
  const auto whole = gptq_quantize(layer.weight, factor, spec, QuantOrder::kStatic).weight;
  const auto part = gptq_quantize(layer.weight.slice(0, 7, 30), factor, spec, QuantOrder::kStatic).weight;
  EXPECT_TRUE(at::equal(slice_rows(whole, 7, 30).codes, part.codes));
  EXPECT_TRUE(at::equal(slice_rows(whole, 7, 30).scales, part.scales));
}

TEST(Gptq, RefusesAGroupThatDoesNotDivideAndNamesTheOnesThatDo) {
  const auto weight = at::ones({16, 576});
  try {
    round_to_nearest(weight, grid(128, ClipRule::kNone));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("128 inputs does not divide its width of 576"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("64, 32"), std::string::npos) << error.what();
  }
  EXPECT_EQ(largest_group_size({576, 1536}), 64);
  EXPECT_EQ(largest_group_size({2048, 8192}), 128);
  EXPECT_EQ(largest_group_size({576, 100}), 0);
}

TEST(Grid, EveryScaleIsAFiniteNonzeroHalf) {
  auto weight = draw_layer(6, 32, 64, 1).weight;
  weight[0].zero_();        // nothing to scale by
  weight[1].mul_(1e-9);     // under fp16's least step
  weight[2].mul_(1e7);      // over fp16's largest value
  weight[3].abs_();         // no negative weight
  weight[4].abs_().neg_();  // no positive one
  for (const bool symmetric : {true, false}) {
    for (const auto clip : {ClipRule::kNone, ClipRule::kMse}) {
      const auto quantized = round_to_nearest(weight, grid(32, clip, symmetric));
      const float* scales = quantized.scales.const_data_ptr<float>();
      for (int64_t i = 0; i < quantized.scales.numel(); ++i) {
        EXPECT_TRUE(std::isfinite(scales[i]) && scales[i] != 0.0f);
        EXPECT_EQ(half_to_float(float_to_half(scales[i])), scales[i]);
      }
      EXPECT_TRUE(at::isfinite(dequantize(quantized)).all().item<bool>());
      EXPECT_EQ(dequantize(quantized)[0].abs().max().item<float>(), 0.0f);
    }
  }
}

TEST(Grid, SearchNeverLosesToTheUnclippedScale) {
  const Layer layer = draw_layer(8, 64, 128, 64);
  const auto importance = layer.hessian.diagonal().to(at::kFloat).contiguous();
  const auto error = [&](const QuantizedWeight& quantized) {
    return ((layer.weight - dequantize(quantized)).square() * importance).view({64, 4, 32}).sum(2);
  };
  const auto unclipped = error(round_to_nearest(layer.weight, grid(32, ClipRule::kNone)));
  const auto searched = error(round_to_nearest(layer.weight, grid(32, ClipRule::kHessian), importance));
  EXPECT_TRUE((searched <= unclipped * 1.00001).all().item<bool>());
  EXPECT_LT(searched.sum().item<double>(), 0.95 * unclipped.sum().item<double>());
}

TEST(Hessian, EqualsThePlainProductHoweverItIsBatched) {
  const Layer layer = draw_layer(9, 16, 500, 700);  // a width that is no multiple of the block of columns
  for (const int64_t batch : {700, 128, 33}) {
    HessianAccumulator accumulator(500, at::kCPU);
    for (int64_t begin = 0; begin < 700; begin += batch) {
      accumulator.add(layer.inputs.slice(0, begin, std::min<int64_t>(begin + batch, 700)));
    }
    EXPECT_EQ(accumulator.num_tokens(), 700);
    const auto hessian = accumulator.finish();
    EXPECT_TRUE(at::equal(hessian, hessian.t()));
    EXPECT_LT(((hessian - layer.hessian).abs().max() / layer.hessian.abs().max()).item<double>(), 1e-6);
  }
  EXPECT_THROW(HessianAccumulator(4, at::kCPU).finish(), Error);
}

TEST(Hessian, FactorInvertsTheDampedHessianInVisitingOrder) {
  const Layer layer = draw_layer(10, 16, 96, 400);
  for (const auto order : {QuantOrder::kNone, QuantOrder::kStatic, QuantOrder::kGroupAware}) {
    const auto factor = factorize_hessian(layer.hessian, order, 32, 0.01);
    EXPECT_EQ(factor.trouble, HessianTrouble::kNone);
    EXPECT_TRUE(at::equal(std::get<0>(factor.order.sort()), at::arange(96, at::kLong)));
    auto damped = layer.hessian + at::eye(96, at::kDouble) * (0.01 * layer.hessian.diagonal().mean());
    damped = damped.index_select(0, factor.order).index_select(1, factor.order);
    const auto upper = factor.upper.to(at::kDouble);
    EXPECT_TRUE(at::equal(upper, upper.triu()));
    const auto identity = at::mm(at::mm(upper.t(), upper), damped);
    EXPECT_LT((identity - at::eye(96, at::kDouble)).abs().max().item<double>(), 1e-4);
  }
}

TEST(Hessian, DeadInputsKeepTheirRoundedWeightsAndHarmNobody) {
  Layer layer = draw_layer(11, 32, 64, 300);
  layer.inputs.slice(1, 10, 14).zero_();
  layer.hessian.slice(0, 10, 14).zero_();
  layer.hessian.slice(1, 10, 14).zero_();
  const auto factor = factorize_hessian(layer.hessian, QuantOrder::kNone, 64, 0.01);
  EXPECT_EQ(factor.dead_columns, 4);
  EXPECT_EQ(factor.trouble, HessianTrouble::kDeadInputs);
  const auto result = gptq_quantize(layer.weight, factor, grid(64, ClipRule::kNone), QuantOrder::kNone).weight;
  const auto rounded = round_to_nearest(layer.weight, grid(64, ClipRule::kNone));
  EXPECT_TRUE(at::equal(result.codes.slice(1, 10, 14), rounded.codes.slice(1, 10, 14)));
  EXPECT_LT(output_error(layer, dequantize(result)), output_error(layer, dequantize(rounded)));
}

TEST(Hessian, TellsFewRowsFromInputsThatOthersDetermine) {
  const Layer thin = draw_layer(14, 8, 96, 40);  // 40 tokens cannot span 96 inputs
  const auto few = factorize_hessian(thin.hessian, QuantOrder::kStatic, 32, 0.01, 40);
  EXPECT_EQ(few.trouble, HessianTrouble::kFewRows);
  EXPECT_EQ(few.attempts, 1);
  Layer copied = draw_layer(15, 8, 96, 600);
  copied.inputs.select(1, 7).copy_(copied.inputs.select(1, 3) * 2);
  const auto x = copied.inputs.to(at::kDouble);
  const auto bound = factorize_hessian(at::mm(x.t(), x) / 600, QuantOrder::kStatic, 32, 0.01, 600);
  EXPECT_EQ(bound.trouble, HessianTrouble::kRankDeficient);
  EXPECT_GT(bound.dependent, 0);
  EXPECT_TRUE(bound.upper.defined());
  const Layer sound = draw_layer(16, 8, 96, 600);
  EXPECT_EQ(factorize_hessian(sound.hessian, QuantOrder::kStatic, 32, 0.01, 600).trouble, HessianTrouble::kNone);
}

TEST(Hessian, RaisesTheDampingUntilItFactors) {
  // Not positive definite by 5 % of its mean diagonal, as rounding can leave a sum: 1 % and 3 % do not mend it, 10 %
  // does.
  auto hessian = at::eye(32, at::kDouble);
  hessian[0][1] = hessian[1][0] = 1.05;
  const auto factor = factorize_hessian(hessian, QuantOrder::kStatic, 32, 0.01);
  EXPECT_EQ(factor.trouble, HessianTrouble::kRankDeficient);
  EXPECT_EQ(factor.attempts, 3);
  EXPECT_DOUBLE_EQ(factor.damp, 0.1);
  ASSERT_TRUE(factor.upper.defined());
}

TEST(Hessian, FallsBackToRoundingOnNonFiniteInputs) {
  Layer layer = draw_layer(12, 32, 64, 300);
  layer.hessian[3][3] = std::numeric_limits<double>::infinity();
  const auto factor = factorize_hessian(layer.hessian, QuantOrder::kStatic, 32, 0.01);
  EXPECT_EQ(factor.trouble, HessianTrouble::kNonFinite);
  EXPECT_FALSE(factor.upper.defined());
  const auto result = gptq_quantize(layer.weight, factor, grid(32, ClipRule::kNone), QuantOrder::kStatic);
  EXPECT_TRUE(at::equal(result.weight.codes, round_to_nearest(layer.weight, grid(32, ClipRule::kNone)).codes));
}

TEST(Hessian, OutputErrorEqualsTheOneOfTheInputsThemselves) {
  const Layer layer = draw_layer(13, 40, 128, 600);
  const auto quantized = dequantize(round_to_nearest(layer.weight, grid(32, ClipRule::kNone)));
  EXPECT_NEAR(relative_output_error(layer.weight, quantized, layer.hessian), output_error(layer, quantized), 1e-5);
}

}  // namespace
}  // namespace potstill
