// Merge proof and errors of the quantized layers.
const merge = D.stages && D.stages.merge;
if (merge) {
  const body = section("merge", "Merge proof", "Logits of base + adapter against the merged model on a probe text, in one arithmetic.");
  table(body, ["quantity", "value"], Object.entries({ ...merge.results, ...(merge.results || {}).proof }).filter(([, v]) => typeof v !== "object").map(([k, v]) => [k.replaceAll("_", " "), number(v, 4)]));
}
if (D.layer_errors && D.layer_errors.length) {
  const body = section("quantization", "Quantization error", "‖(W − Q) X‖ / ‖W X‖ of each linear on the calibration text: how much of its output rounding changed.");
  const modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const layers = [...new Set(D.layer_errors.map(e => e.layer))].sort((a, b) => a - b);
  const at = new Map(D.layer_errors.map(e => [e.layer + "/" + e.module, e.relative_error]));
  plot(body, "Relative output error", [{ type: "heatmap", x: modules, y: layers, z: layers.map(l => modules.map(m => at.get(l + "/" + m))), colorscale: "YlOrRd", reversescale: false }],
    { height: 160 + 16 * layers.length, yaxis: { title: { text: "layer" }, autorange: "reversed", dtick: layers.length < 40 ? 1 : undefined } });
  const worst = [...D.layer_errors].sort((a, b) => b.relative_error - a.relative_error).slice(0, 5);
  table(body, ["largest errors", "relative error", "of rounding alone", "damping used"], worst.map(e => ["layer " + e.layer + " " + e.module, percent(e.relative_error), percent(e.rounding_error), number(e.damp)]));
  const blocks = layers.map(l => (D.layer_errors.find(e => e.layer === l) || {}).block_error);
  if (blocks.some(e => e > 0)) plot(body, "Error of each block's output so far, ‖h − h̃‖ / ‖h̃‖ against the unquantized model", [{ x: layers, y: blocks, mode: "lines+markers" }], { xaxis: { title: { text: "layer" } } });
}
