// The generated pairs, what was refused and why, their balance, and a browser for all of them.
if (D.pairs && D.pairs.length) {
  const results = ((D.stages || {}).synth || {}).results || {};
  const refused = results.yield || {}, balance = results.balance || {};
  const reasons = Object.entries(refused.refused || {}).sort((a, b) => a[1] - b[1]);
  const body = section("pairs", "Generated pairs", D.pairs.length + " pairs were kept" + (reasons.length ?
    " of " + refused.candidates + " candidates in " + results.rounds + (results.rounds === 1 ? " round" : " rounds") + "; the others were refused, each for the reason that is named." : "."));
  const plots = grid(body);
  if (reasons.length) {
    // A bar a reason, cut by the rules behind it; the kept ones stand on top.
    const rules = D.rules_by_reason || {};
    const names = [...reasons.map(r => r[0]), "accepted"];
    const series = [...new Set(Object.values(rules).flatMap(r => Object.keys(r)))];
    const traces = series.map((rule, i) => ({ type: "bar", orientation: "h", name: rule, y: names, x: names.map(n => (rules[n] || {})[rule] || 0),
      hovertemplate: rule + ": %{x}<extra></extra>", marker: { color: palette[i % palette.length], opacity: .75 } }));
    traces.push({ type: "bar", orientation: "h", name: "accepted", y: names, x: names.map(n => n === "accepted" ? D.pairs.length : 0), marker: { color: css("--good") } });
    plot(plots, "Yield: what became of the candidates", traces, { barmode: "stack", showlegend: false, xaxis: { title: { text: "candidates" } },
      height: 130 + 24 * names.length });
  }
  const keys = [...new Set(D.pairs.flatMap(p => Object.keys(p.scores || {})))].filter(k => D.pairs.some(p => typeof (p.scores || {})[k] === "number"));
  if (keys.length) plot(plots, "Scores of the kept pairs", keys.map(k => ({ type: "box", name: k, y: D.pairs.map(p => (p.scores || {})[k]), boxpoints: "all", jitter: .4, pointpos: 0, marker: { size: 3 } })), { showlegend: false });
  if (balance.letters) plot(plots, "The right option's letter (chi-square " + number(balance.letters_chi_square) + ")",
    [{ type: "bar", x: Object.keys(balance.letters), y: Object.values(balance.letters), text: Object.values(balance.letters), textposition: "auto" }], { showlegend: false });
  const subtopics = {};
  for (const p of D.pairs) if (p.subtopic) subtopics[p.subtopic] = (subtopics[p.subtopic] || 0) + 1;
  const counts = Object.entries(subtopics).sort((a, b) => b[1] - a[1]);
  if (counts.length > 1) plot(plots, "Pairs by subtopic (" + counts.length + ")", [{ type: "bar", x: counts.map(c => c[0]), y: counts.map(c => c[1]) }],
    { showlegend: false, xaxis: { tickangle: -60, tickfont: { size: 9 }, showticklabels: counts.length <= 60 } });
  const work = Object.entries(results.work || {});
  if (work.length) table(body, ["what the teacher was asked for", "answers", "tokens read", "written", ...(work.some(w => present(w[1].cost)) ? ["cost"] : [])],
    work.map(([what, w]) => [what, w.answers, w.prompt_tokens, w.written_tokens, ...(work.some(v => present(v[1].cost)) ? [number(w.cost, 4)] : [])]));

  const kPage = 25;
  const search = el("input", { type: "search", placeholder: "search the pairs", "aria-label": "search the pairs" });
  const which = el("select", { "aria-label": "which pairs" });
  for (const option of ["all", "train", "heldout"]) which.append(el("option", { value: option }, option));
  for (const [reason, count] of [...reasons].reverse()) which.append(el("option", { value: "refused " + reason }, "refused: " + reason + " (" + count + ")"));
  const order = el("select", { "aria-label": "order" });
  for (const option of ["in order", "best first", "worst first"]) order.append(el("option", { value: option }, option));
  const back = el("button", { type: "button" }, "‹"), next = el("button", { type: "button" }, "›");
  const shown = el("span", { class: "soft" }), list = el("div", { class: "pairs" });
  body.append(el("div", { class: "controls" }, search, which, order, back, next, shown), list);
  const tagsOf = p => {
    const tags = el("div");
    for (const tag of [p.subtopic, p.split, p.reason && p.reason !== p.rule ? p.reason + ": " + p.rule : p.reason].filter(Boolean)) tags.append(el("span", { class: "tag" }, tag));
    for (const [k, v] of Object.entries(p.scores || {})) if (typeof v === "number") tags.append(el("span", { class: "tag" }, k + " " + number(v)));
    if (p.blind) tags.append(el("span", { class: "tag" }, "blind " + percent(p.blind.agreement)));
    return tags;
  };
  const cardOf = p => {
    const card = el("div", { class: "pair" }, el("div", { class: "q", style: "white-space:pre-wrap" }, [p.instruction, p.input].filter(Boolean).join("\n\n")),
      el("div", { style: "white-space:pre-wrap" }, p.output || ""));
    if (Array.isArray(p.choices)) card.append(el("ul", { style: "margin:.2rem 0;padding-left:1.2rem;list-style:none" }, ...p.choices.map((choice, i) => {
      const right = String.fromCharCode(65 + i) === p.answer_key;
      return el("li", right ? { style: "font-weight:600" } : { class: "soft" }, (right ? "✓ " : "") + String.fromCharCode(65 + i) + ". " + choice);
    })));
    const rests = p.passage || p.fact;
    if (rests) card.append(el("details", {}, el("summary", {}, "rests on"), el("div", { class: "soft" }, rests)));
    if (p.detail) card.append(el("div", { class: "soft" }, p.detail));
    if (p.critique) card.append(el("div", { class: "soft" }, "critic: " + p.critique));
    card.append(tagsOf(p));
    if (p.raw) card.append(el("details", {}, el("summary", {}, "lineage"), el("pre", {}, JSON.stringify({ id: p.id, seeds: p.seeds, round: p.round, passed: p.passed, teacher: p.teacher,
      teacher_revision: p.teacher_revision, critic: p.critic, raw: p.raw, measured: p.measured }, null, 1))));
    return card;
  };
  let page = 0;
  const draw = () => {
    const words = search.value.toLowerCase(), wanted = which.value;
    const source = wanted.startsWith("refused ") ? (D.rejected || []).filter(p => p.reason === wanted.slice(8)) : D.pairs.filter(p => wanted === "all" || p.split === wanted);
    const found = source.filter(p => JSON.stringify(p).toLowerCase().includes(words));
    const score = p => (p.scores || {}).score ?? 0;
    if (order.value !== "in order") found.sort((a, b) => order.value === "best first" ? score(b) - score(a) : score(a) - score(b));
    page = Math.max(0, Math.min(page, Math.ceil(found.length / kPage) - 1));
    const first = page * kPage, last = Math.min(found.length, first + kPage);
    back.disabled = page === 0;
    next.disabled = last === found.length;
    shown.textContent = found.length ? (first + 1) + " to " + last + " of " + found.length : "none";
    list.replaceChildren(...found.slice(first, last).map(cardOf));
    list.scrollTop = 0;
  };
  const restart = () => { page = 0; draw(); };
  search.addEventListener("input", restart);
  which.addEventListener("change", restart);
  order.addEventListener("change", restart);
  back.addEventListener("click", () => { --page; draw(); });
  next.addEventListener("click", () => { ++page; draw(); });
  draw();
}
