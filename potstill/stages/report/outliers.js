// Outliers of activations and weights, of one model or of two.
if (D.outliers && D.outliers.models) {
  const models = D.outliers.models, dashes = ["solid", "dot"];
  const short = models.map(m => m.path.split("/").filter(Boolean).pop());
  const body = section("outliers", "Outliers", models.map(m => m.path).join(" (solid) and ") + (models.length > 1 ? " (dotted)" : "") +
    (D.outliers.text ? ", on " + D.outliers.text : "") + ". Excess kurtosis is 0 of a normal distribution.");
  const tensors = ["attention_input", "attention_output", "mlp_input", "mlp_activations", "block_output"];
  const lines = (field, transform = v => v) => models.flatMap((m, i) => tensors.map((t, c) => {
    const rows = m.activations.filter(r => r.tensor === t);
    return { x: rows.map(r => r.layer), y: rows.map(r => transform(r[field])), mode: "lines+markers", marker: { size: 4 },
      line: { dash: dashes[i], color: palette[c] }, name: t + (models.length > 1 ? ", " + short[i] : "") };
  }));
  const layer = { xaxis: { title: { text: "layer" } } }, logarithmic = { ...layer, yaxis: { type: "log" } };
  const plots = grid(body);
  if (models[0].activations.length) {
    plot(plots, "Excess kurtosis over all entries", lines("excess_kurtosis", v => Math.max(v, 1e-2)), logarithmic);
    plot(plots, "Excess kurtosis of a token's entries", lines("token_kurtosis", v => Math.max(v, 1e-2)), logarithmic);
    plot(plots, "Max |x| / median |x| of a token", lines("token_max_to_median"), logarithmic);
    plot(plots, "Largest channel / median channel", lines("channel_max_to_median"), logarithmic);
    plot(plots, "Channels above 6 σ of all entries", lines("channels_above_6_sigma"), layer);
    plot(plots, "Largest |x|", lines("max_abs"), logarithmic);
  }
  const modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const weights = field => models.flatMap((m, i) => modules.map((name, c) => {
    const rows = m.weights.filter(r => r.name.endsWith(name));
    return { x: rows.map((_, l) => l), y: rows.map(r => r[field]), mode: "lines", line: { dash: dashes[i], color: palette[c % palette.length] }, name: name + (models.length > 1 ? ", " + short[i] : "") };
  }));
  plot(plots, "Crest factor of weights (max / rms of 64)", weights("crest_factor"), layer);
  plot(plots, "Excess kurtosis of weights", weights("excess_kurtosis"), layer);
  plot(plots, "Spectral norm", weights("spectral_norm"), layer);
  plot(plots, "Stable rank", weights("stable_rank"), layer);
}
