// Stages, files, hashes, times.
const stages = Object.entries(D.stages || {});
if (stages.length) {
  const body = section("run", "The run", "Same seed, same bytes, on one machine and thread count. Command: " + (D.command || ""));
  const seconds = stages.map(([, s]) => (s.measured || {}).seconds || 0);
  plot(body, "Seconds of each stage", [{ type: "bar", orientation: "h", y: stages.map(s => s[0]), x: seconds, text: seconds.map(duration), textposition: "auto", marker: { color: palette[0] } }],
    { yaxis: { autorange: "reversed" }, height: 120 + 26 * stages.length });
  const planned = new Map((D.plan || []).map(p => [p.stage, p]));
  const row = ([name, s]) => { const p = planned.get(name) || {}, m = s.measured || {};
    return [name, ...(planned.size ? [duration(p.seconds)] : []), duration(m.seconds), ...(planned.size ? [megabytes(p.memory_bytes)] : []), megabytes(m.peak_rss_bytes), (s.outputs_sha256 || "").slice(0, 12), s.seed]; };
  table(body, ["stage", ...(planned.size ? ["time, planned"] : []), "time", ...(planned.size ? ["memory, planned"] : []), "peak memory", "outputs sha256", "seed"], stages.map(row));
  if (D.files && D.files.length) table(body, ["file", "size"], D.files.map(f => [f.path, megabytes(f.bytes)]));
  for (const [name, s] of stages) {
    const more = el("details", {}, el("summary", {}, name + ": settings, inputs and results"));
    more.append(el("pre", {}, JSON.stringify({ config: s.config, inputs: s.inputs, results: s.results, measured: s.measured }, null, 2)));
    body.append(more);
  }
}
