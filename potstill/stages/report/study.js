// ---- a study --------------------------------------------------------------------------------------------------------
// Verdict, the one table, what the findings say, plots: drawn when the page is of a study (D.study).
if (D.study) {
  const S = D.study;
  const points = S.arms.flatMap(arm => arm.models.map(model => ({ arm: arm.name, name: S.arms.length > 1 ? arm.name + ": " + model.label : model.label, model })));
  const tasks = Object.keys(points[0].model.accuracy.tasks);
  const withInterval = (m, scale, digits) => !present(m.mean) ? "–" : (scale * m.mean).toFixed(digits) +
    (present(m.low) ? " [" + (scale * m.low).toFixed(digits) + ", " + (scale * m.high).toFixed(digits) + "]" : "");
  const unit = f => f.unit === "ratio" ? "" : " " + f.unit;
  const digits = f => f.unit === "nats" ? 3 : 2;

  const first = S.findings[0];
  if (first) {
    const body = section("verdict", "Verdict");
    body.append(el("p", { style: "font-size:1.1rem; border-left:4px solid var(--accent); padding:.2rem .9rem" }, first.question + ": " + first.answer + "."));
  }
  {
    const body = section("table", "Arms and models", "Accuracy in %, means over the seeds with 95 % intervals that know that both seeds and rows were drawn. Other numbers with Student's interval over the seeds.");
    const scalars = ["kl", "top1_agreement", "pairs_perplexity", "text_perplexity"].filter(k => points.some(p => p.model.numbers[k]));
    const names = { kl: "KL to the teacher", top1_agreement: "top-1 agreement", pairs_perplexity: "perplexity (pairs)", text_perplexity: "perplexity (text)" };
    table(body, ["model", "size", ...tasks, ...(tasks.length > 1 ? ["mean"] : []), ...scalars.map(k => names[k])], points.map(p => [p.name,
      megabytes((p.model.numbers.size_bytes || {}).mean), ...tasks.map(t => withInterval(p.model.accuracy.tasks[t], 100, 1)),
      ...(tasks.length > 1 ? [withInterval(p.model.accuracy, 100, 1)] : []),
      ...scalars.map(k => p.model.numbers[k] ? withInterval(p.model.numbers[k], k === "top1_agreement" ? 100 : 1, k === "top1_agreement" ? 1 : 3) : "–")]));
  }
  {
    const body = section("findings", "What it shows");
    table(body, ["question", "estimate", "95 % interval", "answer"], S.findings.map(f => [f.question, present(f.estimate) ? f.estimate.toFixed(digits(f)) + unit(f) : "–",
      present(f.low) ? f.low.toFixed(digits(f)) + " to " + f.high.toFixed(digits(f)) : "–", el("td", { class: "text" }, f.answer)]));
    for (const [measure, title] of [["points", "Differences in points of accuracy, 95 % intervals"], ["nats", "Differences in KL to the teacher, 95 % intervals"]]) {
      const differences = S.findings.filter(f => f.unit === measure && present(f.low)).reverse();
      if (differences.length) plot(body, title, [{ x: differences.map(f => f.estimate), y: differences.map(f => f.question), mode: "markers", type: "scatter",
        error_x: { type: "data", symmetric: false, array: differences.map(f => f.high - f.estimate), arrayminus: differences.map(f => f.estimate - f.low) }, marker: { size: 9 } }],
        { height: 140 + 30 * differences.length, showlegend: false, xaxis: { zeroline: true, zerolinewidth: 2, title: { text: measure } } });
    }
  }
  {
    const body = section("plots", "Plots"), plots = grid(body);
    const labels = [...new Set(points.map(p => p.model.label))];
    const overSeeds = (title, value, errors) => {
      const traces = labels.map(label => {
        const own = points.filter(p => p.model.label === label);
        return { type: "bar", name: label, x: own.map(p => p.arm), y: own.map(p => value(p.model)), error_y: errors && { type: "data", symmetric: false,
          array: own.map(p => errors(p.model)[1]), arrayminus: own.map(p => errors(p.model)[0]) } };
      });
      plot(plots, title, traces, { barmode: "group", xaxis: { title: { text: S.arms.length > 1 ? "arm" : "" } } });
    };
    const spread = m => present(m.low) ? [100 * (m.mean - m.low), 100 * (m.high - m.mean)] : [0, 0];
    overSeeds("Accuracy, %" + (tasks.length > 1 ? ", mean of the tasks" : ""), m => 100 * m.accuracy.mean, m => spread(m.accuracy));
    if (tasks.length > 1) for (const t of tasks) overSeeds(t + ", accuracy in %", m => 100 * m.accuracy.tasks[t].mean, m => spread(m.accuracy.tasks[t]));
    const keys = [...new Set(points.flatMap(p => Object.keys(p.model.numbers)))].filter(k => k !== "size_bytes");
    const titles = { kl: "KL to the teacher, nats a token", top1_agreement: "Top-1 agreement with the teacher", pairs_perplexity: "Perplexity on held-out pairs", text_perplexity: "Perplexity on text" };
    for (const key of keys) {
      const own = points.filter(p => p.model.numbers[key]);
      plot(plots, titles[key] || key[0].toUpperCase() + key.slice(1), [
        { type: "scatter", mode: "markers", name: "a seed", x: own.flatMap(p => p.model.numbers[key].values.map(() => p.name)), y: own.flatMap(p => p.model.numbers[key].values), marker: { size: 7 } },
        { type: "scatter", mode: "markers", name: "mean", x: own.map(p => p.name), y: own.map(p => p.model.numbers[key].mean), marker: { size: 14, symbol: "line-ew-open", line: { width: 3 } } }]);
    }
  }
  // Training curves of all arms: a line a seed, a colour an arm.
  const trained = S.arms.filter(a => a.training && a.training.length);
  if (trained.length) {
    const curves = { kl: "KL to the teacher, nats a token", kl_top_k: "KL over top-k and rest", uld: "ULD (no KL)", reverse_kl: "Reverse KL", jsd: "Jensen-Shannon divergence", loss: "Loss", lr: "Learning rate",
      grad_norm: "Gradient norm", update_rms: "Update of the factors, root mean square", delta_norm_ratio: "Largest delta beside its weight, spectral norms", orthogonality_error: "Orthogonality error of Muon's directions" };
    const body = section("training", "Training", "A colour an arm, a line a seed, smoothed over three steps; a click on a name hides it."), plots = grid(body);
    const smooth = y => y.map((_, i) => { const near = y.slice(Math.max(0, i - 1), i + 2); return near.reduce((s, v) => s + v, 0) / near.length; });
    for (const [key, title] of Object.entries(curves)) {
      const traces = trained.flatMap((arm, c) => arm.training.filter(t => t.log[key]).map((t, i) => ({ x: t.log.step, y: smooth(t.log[key]), mode: "lines", name: arm.name, legendgroup: arm.name, showlegend: i === 0,
        opacity: 0.65, line: { width: 1.4, color: palette[c % palette.length] } })));
      if (traces.length) plot(plots, title, traces, { xaxis: { title: { text: "step" } }, yaxis: { type: key === "loss" || key === "lr" ? "linear" : "log" } });
    }
  }
  {
    const body = section("arms", "The arms", "Every arm is the recipe with these settings in place of its own.");
    table(body, ["arm", "what", "settings"], S.arms.map(a => [a.name, a.what, el("td", { class: "text" }, a.overrides.join(", ") || "–")]));
  }
}
