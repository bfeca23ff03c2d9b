// Outliers of activations and weights: of one model, or of several side by side (before and after training and quantization).
if (D.outliers && D.outliers.models) {
  const models = D.outliers.models, several = models.length > 1;
  const names = models.map(m => m.label || m.path.split("/").filter(Boolean).pop());
  const tensors = ["attention_input", "attention_output", "mlp_input", "mlp_activations", "block_output"];
  const modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const measured = models[0].activations.length > 0, positive = v => Math.max(v, 1e-2);
  const ofActivations = [["excess_kurtosis", "excess kurtosis over all entries", positive, "log"], ["token_kurtosis", "excess kurtosis of a token's entries", positive, "log"],
    ["token_max_to_median", "max |x| / median |x| of a token", null, "log"], ["channel_max_to_median", "largest channel / median channel", null, "log"],
    ["channels_above_6_sigma", "channels above 6 σ of all entries", null, "linear"], ["max_abs", "largest |x|", null, "log"]];
  const ofWeights = [["crest_factor", "crest factor (max / rms of 64)"], ["excess_kurtosis", "excess kurtosis"], ["spectral_norm", "spectral norm"], ["stable_rank", "stable rank"]];
  const body = section("outliers", "Outliers", (measured ? "Of the linears' inputs and the blocks' outputs" + (D.outliers.text ? " on " + D.outliers.text : "") + ", and of the weights. " : "Of the weights. ") +
    (several ? names.join(", ") + ". " : "") + "Excess kurtosis is 0 of a normal distribution.");
  if (several) {
    const mean = rows => rows.reduce((sum, v) => sum + v, 0) / rows.length;
    const line = (what, values) => [what, ...values.map(v => number(v))];
    const rows = measured ? ofActivations.map(([field, title]) => line("activations: " + title, models.map(m => mean(m.activations.map(r => r[field]))))) : [];
    table(body, ["mean over layers", ...names], [...rows, ...ofWeights.map(([field, title]) => line("weights: " + title, models.map(m => mean(m.weights.map(r => r[field])))))]);
  }
  const activationRows = (m, tensor) => m.activations.filter(r => r.tensor === tensor), weightRows = (m, module) => m.weights.filter(r => r.name.endsWith(module));
  // One model: a line for each tensor. Several: a line for each model, of the tensor that is chosen.
  const lines = (rowsOf, parts, part, field, transform) => {
    const trace = (m, i, p, name) => ({ x: rowsOf(m, p).map((_, layer) => layer), y: rowsOf(m, p).map(r => transform ? transform(r[field]) : r[field]), mode: "lines+markers",
      marker: { size: 4, symbol: i }, line: { color: palette[i % palette.length], dash: several ? ["solid", "dot", "dash"][i % 3] : "solid" }, name });
    return several ? models.map((m, i) => trace(m, i, part, names[i])) : parts.map((p, i) => trace(models[0], i, p, p));
  };
  const group = (heading, rowsOf, parts, first, measures) => {
    body.append(el("h3", {}, heading));
    const select = el("select", { "aria-label": heading }), titled = (title, part) => several ? part + ": " + title : title[0].toUpperCase() + title.slice(1);
    for (const p of parts) select.append(el("option", p === first ? { selected: "" } : {}, p));
    if (several) body.append(el("div", { class: "controls" }, el("label", {}, "Of ", select)));
    const plots = grid(body);
    const boxes = measures.map(([field, title, transform, scale]) => ({ field, title, transform, box: plot(plots, titled(title, first), lines(rowsOf, parts, first, field, transform),
      { xaxis: { title: { text: "layer" } }, yaxis: { type: scale || "linear" } }) }));
    select.addEventListener("change", () => {
      for (const b of boxes) {
        b.box.previousElementSibling.textContent = titled(b.title, select.value);
        Plotly.react(b.box, lines(rowsOf, parts, select.value, b.field, b.transform), { ...b.box.layout, yaxis: { ...b.box.layout.yaxis, autorange: true } }, { responsive: true, displayModeBar: false });
      }
    });
  };
  if (measured) group("Activations", activationRows, tensors, "mlp_activations", ofActivations);
  group("Weights", weightRows, modules, "down_proj", ofWeights);
}
