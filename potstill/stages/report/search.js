// Trials of the search.
if (D.trials && D.trials.length) {
  const body = section("search", "Search", "Each trial trains an adapter with the settings shown; the objective is " + (D.search_objective || "the held-out KL") + ", lower is better.");
  const done = D.trials.filter(t => typeof t.value === "number");
  const plots = grid(body);
  let best = Infinity;
  plot(plots, "Trials and the best so far", [
    { x: done.map(t => t.number), y: done.map(t => t.value), mode: "markers", name: "trial", marker: { size: 9 } },
    { x: done.map(t => t.number), y: done.map(t => best = Math.min(best, t.value)), mode: "lines", line: { shape: "hv" }, name: "best so far" }],
    { xaxis: { title: { text: "trial" }, dtick: done.length < 20 ? 1 : undefined }, yaxis: { title: { text: D.search_objective || "objective" } } });
  const names = [...new Set(done.flatMap(t => Object.keys(t.params || {})))];
  const varying = names.filter(n => new Set(done.map(t => t.params[n])).size > 1 && done.every(t => typeof t.params[n] === "number"));
  if (varying.length && done.length > 1) plot(plots, "Settings of the trials", [{ type: "parcoords",
    line: { color: done.map(t => t.value), colorscale: "Viridis", reversescale: true, showscale: true },
    dimensions: [...varying.map(n => ({ label: n, values: done.map(t => /(^|_)lr$/.test(n) ? Math.log10(t.params[n]) : t.params[n]), ...(/(^|_)lr$/.test(n) ? { label: "log10 " + n } : {}) })),
      { label: "objective", values: done.map(t => t.value) }] }], { margin: { l: 60, r: 40, t: 110, b: 30 }, height: 360 });
  const found = D.search_best || {};
  if (found.importance) {
    const shares = Object.entries(found.importance).sort((a, b) => a[1] - b[1]);
    plot(plots, "What the objective hangs on", [{ type: "bar", orientation: "h", x: shares.map(s => 100 * s[1]), y: shares.map(s => s[0]) }],
      { xaxis: { title: { text: "share of the variance, %" } } });
  }
  if (varying.includes("alpha")) {
    plot(plots, "Why alpha came out as it did", [{ x: done.map(t => t.params.alpha), y: done.map(t => t.value), text: done.map(t => "trial " + t.number), mode: "markers",
      marker: { size: 9, color: done.map(t => t.params.temperature), colorscale: "Viridis", showscale: true, colorbar: { title: { text: "temperature" } } } }],
      { xaxis: { title: { text: "alpha (1 = the teacher's distributions alone)" } }, yaxis: { title: { text: D.search_objective || "objective" } } });
  }
  if (found.replicates) body.append(el("p", {}, "The best settings under " + found.replicates.values.length + " other seeds: mean " + number(found.replicates.mean, 4) +
    ", 95 % interval " + found.replicates.interval95.map(x => number(x, 4)).join(" to ") + "."));
  const bestTrial = done.reduce((a, b) => a && a.value <= b.value ? a : b, null);
  table(body, ["trial", "state", "objective", ...names], D.trials.map(t => [t.number + (t === bestTrial ? " (best)" : ""), t.state || "", number(t.value, 4), ...names.map(n => number((t.params || {})[n]))]), D.trials.indexOf(bestTrial));
}
