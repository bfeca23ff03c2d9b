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
  plot(body, "Relative output error", [{ type: "heatmap", x: modules, y: layers, z: layers.map(l => modules.map(m => at.get(l + "/" + m))), colorscale: "YlOrRd", reversescale: true }],
    { height: 160 + 16 * layers.length, yaxis: { title: { text: "layer" }, autorange: "reversed", dtick: layers.length < 40 ? 1 : undefined } });
  const worst = [...D.layer_errors].sort((a, b) => b.relative_error - a.relative_error).slice(0, 3);
  // What the quantizer measured on these linears while it had their inputs; nothing where it did not.
  const remedies = e => {
    const found = [];
    if (e.error_with_8_bits > 0) found.push(["8 bits", e.error_with_8_bits]);
    if (e.error_with_half_groups > 0) found.push(["groups of " + e.group_size / 2, e.error_with_half_groups]);
    const text = found.map(([what, error]) => what + ": " + percent(error));
    if (e.error_held_out > 0) {
      const gap = e.error_held_out / e.error_fitted - 1;
      text.push("fitted on 7/8 of the rows: " + percent(e.error_fitted) + " there, " + percent(e.error_held_out) + " on the rest" +
        (gap > 0.1 ? ": more rows would help" : ": more rows would hardly help"));
    }
    return text.join("; ");
  };
  table(body, ["three linears that hurt most", "relative error", "of rounding alone", "with … instead, as measured"],
    worst.map(e => ["layer " + e.layer + " " + e.module, percent(e.relative_error), percent(e.rounding_error), remedies(e)]));
  const troubled = D.layer_errors.filter(e => e.trouble && e.trouble !== "none");
  if (troubled.length) table(body, ["not plain sailing", "cause", "damping used", "dead inputs", "dependent inputs", "tokens", "relative error"],
    troubled.map(e => ["layer " + e.layer + " " + e.module + (e.rounded ? " (rounded to nearest)" : ""), e.trouble, number(e.damp), number(e.dead_inputs), number(e.dependent_inputs), number(e.tokens), percent(e.relative_error)]));
  if (D.layer_errors.some(e => e.bits === 8)) plot(body, "Bits of each linear", [{ type: "heatmap", x: modules, y: layers, z: layers.map(l => modules.map(m => (D.layer_errors.find(e => e.layer === l && e.module === m) || {}).bits)), colorscale: "Blues", zmin: 0, zmax: 8 }],
    { height: 160 + 16 * layers.length, yaxis: { title: { text: "layer" }, autorange: "reversed" } });
  plot(body, "Excess kurtosis of each linear's input", [{ type: "heatmap", x: modules, y: layers, z: layers.map(l => modules.map(m => Math.log10(1 + Math.max(0, (D.layer_errors.find(e => e.layer === l && e.module === m) || {}).input_kurtosis || 0)))), colorscale: "Viridis", colorbar: { title: { text: "log10(1 + k)" } } }],
    { height: 160 + 16 * layers.length, yaxis: { title: { text: "layer" }, autorange: "reversed" } });
  const blocks = layers.map(l => (D.layer_errors.find(e => e.layer === l) || {}).block_error);
  if (blocks.some(e => e > 0)) plot(body, "Error of each block's output so far, ‖h − h̃‖ / ‖h̃‖ against the unquantized model", [{ x: layers, y: blocks, mode: "lines+markers" }], { xaxis: { title: { text: "layer" } } });
}
