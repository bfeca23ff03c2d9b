// The teacher's knowledge: exact or not, and what teacher and student read.
const teach = ((D.stages || {}).teach || {}).results, trained = ((D.stages || {}).train || {}).results;
if (teach || trained) {
  const summary = (trained && trained.knowledge) || (teach && teach.knowledge) || "exact";
  const body = section("knowledge", "The teacher's knowledge", summary.charAt(0).toUpperCase() + summary.slice(1) + ".");
  const rows = [];
  const add = (name, value) => { if (present(value)) rows.push([name, value]); };
  if (teach) {
    add("answer tokens", teach.answer_tokens);
    add("hidden states", present(teach.hidden_bytes) ? megabytes(teach.hidden_bytes) : undefined);
    const error = teach.storage_error || {};
    add("largest error of a logit by 16-bit storage", present(error.max_logit) ? number(error.max_logit) : undefined);
    add("what storage costs, nats a token", present(error.kl) ? number(error.kl) : undefined);
    add("endpoint's model", teach.teacher_model);
    add("mass covered by the likeliest tokens, mean", present(teach.covered_mass) ? percent(teach.covered_mass) : undefined);
    add("the same, least", present(teach.least_covered_mass) ? percent(teach.least_covered_mass) : undefined);
  }
  const measured = ((D.stages.train || {}).measured) || {};
  add("training's memory, planned", present(measured.planned_peak_bytes) ? megabytes(measured.planned_peak_bytes) : undefined);
  add("training's memory, measured", present(measured.planned_peak_bytes) ? megabytes(measured.peak_rss_bytes) : undefined);
  if (rows.length) table(body, ["quantity", "value"], rows);
  for (const sample of (trained && trained.rendered_samples) || []) body.append(el("pre", {}, sample));
  if (trained && trained.rendered_samples) body.append(el("p", { class: "note" }, "The first pairs as the student reads them; what it learns is between ⟦ and ⟧."));
}
