// Models side by side: the evaluation.
const models = (D.evaluation && D.evaluation.models) || [];
if (models.length) {
  const body = section("models", "Models side by side",
    "KL (nats a token, T = 1) and top-1 agreement are against the teacher, on answer tokens of pairs that no training saw. Accuracy with its standard error.");
  const quantity = ["uld", "kl_top_k"].find(q => models.some(m => present(m[q]))) || "kl";
  const closeness = { kl: "KL to teacher", kl_top_k: "KL over top-k and rest (at most the KL)", uld: "ULD (no KL: other tokens)" }[quantity];
  const tasks = [...new Set(models.flatMap(m => Object.keys(m.tasks || {})))];
  const heads = ["model", "size", closeness, "top-1 agreement", "perplexity (pairs)", "perplexity (text)", "ms/token", ...tasks.map(t => t + " acc"), ...tasks.map(t => t + " acc_norm")];
  const accuracy = (m, t, key) => { const r = (m.tasks || {})[t] || {}; const v = r[key + ",none"]; const s = r[key + "_stderr,none"];
    return present(v) ? percent(v) + (present(s) ? " ± " + (100 * s).toFixed(1) : "") : "–"; };
  const rows = models.map(m => [m.label, megabytes(m.size_bytes), number(m[quantity]), percent(m.top1_agreement), number(m.pairs_perplexity, 4), number(m.text_perplexity, 4),
    number(m.ms_per_token), ...tasks.map(t => accuracy(m, t, "acc")), ...tasks.map(t => accuracy(m, t, "acc_norm"))]);
  const keep = heads.map((_, column) => column === 0 || rows.some(row => row[column] !== "–"));
  table(body, heads.filter((_, i) => keep[i]), rows.map(row => row.filter((_, i) => keep[i])), models.length - 1);
  const plots = grid(body), names = models.map(m => m.label);
  const bars = (title, key, scale = 1, layout = {}) => {
    if (!models.some(m => present(m[key]))) return;
    const values = models.map(m => present(m[key]) ? m[key] * scale : null);
    plot(plots, title, [{ type: "bar", x: names, y: values, text: values.map(v => v === null ? "" : number(v)), textposition: "auto",
      marker: { color: names.map((_, i) => palette[i % palette.length]) } }], { showlegend: false, ...layout });
  };
  bars(quantity === "kl" ? "KL to the teacher, nats a token (lower is closer)" : closeness + ", lower is closer", quantity);
  bars("Top-1 agreement with the teacher, %", "top1_agreement", 100);
  bars("Perplexity on held-out pairs", "pairs_perplexity");
  bars("Perplexity on text", "text_perplexity");
  bars("Size on disk, MB", "size_bytes", 1e-6);
  bars("Latency of a token, ms", "ms_per_token");
  for (const task of tasks) {
    const value = (m, key) => ((m.tasks || {})[task] || {})[key];
    plot(plots, task + ": accuracy, % (bars: one standard error)", [{ type: "bar", x: names, y: models.map(m => 100 * value(m, "acc,none")),
      error_y: { type: "data", array: models.map(m => 100 * (value(m, "acc_stderr,none") || 0)), visible: true }, marker: { color: palette[1] } }], { showlegend: false });
  }
}
