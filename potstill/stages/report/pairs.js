// The generated pairs and the refused answers.
if (D.pairs && D.pairs.length) {
  const counts = D.rejected_by_reason || {};
  const body = section("pairs", "Generated pairs", D.pairs.length + " pairs were kept" + (Object.keys(counts).length ?
    "; " + Object.values(counts).reduce((a, b) => a + b, 0) + " answers were refused, each by the rule that is named." : "."));
  const plots = grid(body);
  const reasons = Object.entries(counts).sort((a, b) => a[1] - b[1]);
  if (reasons.length) plot(plots, "Refused, by reason", [{ type: "bar", orientation: "h", y: reasons.map(r => r[0]), x: reasons.map(r => r[1]), marker: { color: palette[5] } }]);
  const keys = [...new Set(D.pairs.flatMap(p => Object.keys(p.scores || {})))].filter(k => D.pairs.some(p => typeof (p.scores || {})[k] === "number"));
  if (keys.length) plot(plots, "Scores of the kept pairs", keys.map(k => ({ type: "box", name: k, y: D.pairs.map(p => (p.scores || {})[k]), boxpoints: "all", jitter: .4, pointpos: 0, marker: { size: 3 } })), { showlegend: false });
  const search = el("input", { type: "search", placeholder: "search the pairs", "aria-label": "search the pairs" });
  const which = el("select", { "aria-label": "which pairs" });
  for (const option of ["all", "train", "heldout", "rejected"]) which.append(el("option", { value: option }, option));
  const shown = el("span", { class: "soft" }), list = el("div", { class: "pairs" });
  body.append(el("div", { class: "controls" }, search, which, shown), list);
  const draw = () => {
    const words = search.value.toLowerCase();
    const source = which.value === "rejected" ? (D.rejected || []) : D.pairs.filter(p => which.value === "all" || p.split === which.value);
    const found = source.filter(p => JSON.stringify(p).toLowerCase().includes(words));
    shown.textContent = found.length + " pairs" + (found.length > 60 ? ", the first 60 shown" : "");
    list.replaceChildren(...found.slice(0, 60).map(p => {
      const tags = el("div");
      for (const tag of [p.subtopic, p.split, p.reason].filter(Boolean)) tags.append(el("span", { class: "tag" }, tag));
      for (const [k, v] of Object.entries(p.scores || {})) if (typeof v === "number") tags.append(el("span", { class: "tag" }, k + " " + number(v)));
      return el("div", { class: "pair" }, el("div", { class: "q" }, [p.instruction, p.input].filter(Boolean).join("\n")), el("div", {}, p.output || ""), tags);
    }));
  };
  search.addEventListener("input", draw); which.addEventListener("change", draw); draw();
}
