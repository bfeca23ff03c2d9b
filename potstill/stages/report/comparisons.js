// The models' answers compared row by row: intervals, tests, flips.
if (D.comparisons && D.comparisons.length) {
  const body = section("comparisons", "Row by row",
    "Paired on the same rows: difference in points with its 95 % interval (paired bootstrap), McNemar's exact test corrected over the tasks by Holm.");
  const signed = x => (100 * x >= 0 ? "+" : "") + (100 * x).toFixed(2);
  for (const c of D.comparisons) {
    body.append(el("h3", {}, c.first + " → " + c.second), el("p", {}, c.verdict + "."));
    const tasks = Object.entries(c.tasks);
    table(body, ["task", "rows", c.first, c.second, "difference [95 %]", "only first right", "only second right", "p (Holm)", "mean |Δ log-likelihood|", "KL of choices"],
      tasks.map(([name, t]) => [name + " " + t.metric, t.rows, percent(t.first), percent(t.second), signed(t.difference) + " [" + t.interval_95.map(signed).join(", ") + "]",
        t.only_first_right, t.only_second_right, number(t.holm_p), number(t.mean_abs_delta_log_likelihood), number(t.mean_choice_kl)]));
    for (const [name, t] of tasks.filter(([, t]) => t.flips.length)) {
      const more = el("details", {}, el("summary", {}, name + ": " + t.num_flips + " answers changed" + (t.num_flips > t.flips.length ? ", the first " + t.flips.length : "")));
      for (const f of t.flips) more.append(el("div", { class: "pair" }, el("div", { class: "q" }, f.question.length > 400 ? "…" + f.question.slice(-400) : f.question),
        el("div", {}, f.first.trim() + " → " + f.second.trim()), el("span", { class: "tag" }, f.gained ? "now right" : "now wrong")));
      body.append(more);
    }
  }
}
