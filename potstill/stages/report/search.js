// ---- search ---------------------------------------------------------------------------------------------------------
// Every trial with its state, the best so far, the settings side by side, what the objective hangs on, why alpha came out
// as it did.
if (D.trials && D.trials.length) {
  const objective = D.search_objective || "held-out KL";
  const lower = { accuracy: "share of wrong answers", agreement: "share of tokens where student and teacher disagree" };
  const count = state => D.trials.filter(t => t.state === state).length;
  const states = [["COMPLETE", "came to an end"], ["PRUNED", "were given up half-way"], ["FAIL", "failed"]].filter(([s]) => count(s)).map(([s, words]) => count(s) + " " + words);
  const body = section("search", "Search", D.trials.length + " trials, each of which trains an adapter with its settings: " + states.join(", ") +
    ". The objective is " + objective + (lower[objective] ? " (" + lower[objective] + ")" : "") + "; lower is better.");
  const done = D.trials.filter(t => t.state === "COMPLETE" && typeof t.value === "number");
  const pruned = D.trials.filter(t => t.pruned_at);
  const plots = grid(body);
  let best = Infinity;
  const history = [
    { x: done.map(t => t.number), y: done.map(t => t.value), mode: "markers", name: "trial", marker: { size: 9 } },
    { x: done.map(t => t.number), y: done.map(t => best = Math.min(best, t.value)), mode: "lines", line: { shape: "hv" }, name: "best so far" }];
  if (pruned.length) history.push({ x: pruned.map(t => t.number), y: pruned.map(t => t.pruned_at.value), mode: "markers", name: "given up (last measured)", marker: { size: 8, symbol: "x" } });
  const untrained = ((D.stages.search || {}).results || {}).untrained;
  if (untrained && /kl/.test(objective) && present(untrained.kl)) history.push({ x: [0, D.trials.length - 1], y: [untrained.kl, untrained.kl], mode: "lines", line: { dash: "dot" }, name: "untrained" });
  plot(plots, "Trials and the best so far", history,
    { xaxis: { title: { text: "trial" }, dtick: D.trials.length < 20 ? 1 : undefined }, yaxis: { title: { text: objective } } });
  const names = [...new Set(D.trials.flatMap(t => Object.keys(t.params || {})))];
  const varying = names.filter(n => new Set(done.map(t => t.params[n])).size > 1 && done.every(t => typeof t.params[n] === "number"));
  const found = D.search_best || {};
  if (found.importance) {
    const shares = Object.entries(found.importance).sort((a, b) => a[1] - b[1]);
    plot(plots, "What the objective hangs on", [{ type: "bar", orientation: "h", x: shares.map(s => 100 * s[1]), y: shares.map(s => s[0]) }],
      { xaxis: { title: { text: "share of the variance, %" } }, showlegend: false });
  }
  // One axis a setting is unreadable on a narrow screen: the plot keeps its width there and scrolls.
  if (varying.length && done.length > 1) {
    const wide = el("div", { style: "min-width:" + (90 * (varying.length + 1)) + "px" }), scroll = el("div", { class: "scroll" }, wide);
    body.append(scroll);
    const logarithmic = n => /(^|_)lr$|^temperature$|^rank$/.test(n) && done.every(t => t.params[n] > 0);
    plot(wide, "Settings of the trials (darker is better)", [{ type: "parcoords",
      line: { color: done.map(t => t.value), colorscale: "Viridis", showscale: true, cmin: Math.min(...done.map(t => t.value)),
        cmax: done.map(t => t.value).sort((a, b) => a - b)[Math.ceil(.8 * (done.length - 1))] },
      dimensions: [...varying.map(n => {
        const values = done.map(t => logarithmic(n) ? Math.log10(t.params[n]) : t.params[n]);
        if (!logarithmic(n)) return { label: n, values };
        const low = Math.min(...values), high = Math.max(...values), ticks = n === "rank" ? [...new Set(values)] : [0, 1, 2, 3].map(i => low + (high - low) * i / 3);
        return { label: n, values, tickvals: ticks, ticktext: ticks.map(v => number(10 ** v)) };
      }), { label: objective, values: done.map(t => t.value) }] }], { margin: { l: 60, r: 40, t: 90, b: 30 }, height: 360 });
  }
  const why = found.alpha;
  if (why || varying.includes("alpha")) {
    const alpha = el("div");
    body.append(alpha);
    if (why) alpha.append(el("p", {}, el("b", {}, "Why alpha came out as it did. "), why.why));
    const traces = [];
    if (why) {
      const p = why.profile;
      traces.push({ x: [...p.map(x => x.alpha), ...p.map(x => x.alpha).reverse()], y: [...p.map(x => x.high), ...p.map(x => x.low).reverse()], fill: "toself", mode: "none",
        fillcolor: "rgba(43,123,217,.18)", hoverinfo: "skip", name: "one standard deviation" });
      traces.push({ x: p.map(x => x.alpha), y: p.map(x => x.expected), mode: "lines", line: { color: palette[1] }, name: "expected, other settings at their best" });
    }
    traces.push({ x: done.map(t => t.params.alpha), y: done.map(t => t.value), text: done.map(t => "trial " + t.number + ", temperature " + number(t.params.temperature)), mode: "markers", marker: { size: 9, color: palette[0] }, name: "trials" });
    plot(alpha, "The objective along alpha", traces, { xaxis: { title: { text: "alpha (1 = the teacher's distributions alone, 0 = the labels alone)" } }, yaxis: { title: { text: objective } } });
  }
  if (found.replicates) body.append(el("p", {}, "The best settings under " + found.replicates.values.length + " other seeds: mean " + number(found.replicates.mean, 4) +
    ", 95 % interval " + found.replicates.interval95.map(x => number(x, 4)).join(" to ") + "."));
  const bestTrial = done.reduce((a, b) => a && a.value <= b.value ? a : b, null);
  const outcome = t => [t.held_out && number(t.held_out.kl, 4), t.held_out && t.held_out.quantized && number(t.held_out.quantized.kl, 4), t.accuracy && Object.values(t.accuracy).map(percent).join(", ")];
  const extra = [["held-out KL", 0], ["after GPTQ", 1], ["accuracy", 2]].filter(([, i]) => D.trials.some(t => outcome(t)[i]));
  table(body, ["trial", "state", "objective", ...extra.map(e => e[0]), ...names], D.trials.map(t => [t.number + (t === bestTrial ? " (best)" : ""), (t.state || "").toLowerCase(),
    number(t.value, 4), ...extra.map(([, i]) => outcome(t)[i] || "–"), ...names.map(n => number((t.params || {})[n]))]), D.trials.indexOf(bestTrial));
  const failed = D.trials.filter(t => t.error);
  if (failed.length) table(body, ["failed trial", "why"], failed.map(t => [String(t.number), el("td", { class: "text" }, t.error)]));
}
