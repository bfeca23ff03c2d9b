// The training log.
if (D.train_log && D.train_log.length) {
  const log = D.train_log, steps = log.map(s => s.step);
  const body = section("training", "Training");
  const plots = grid(body);
  plot(plots, "Loss", ["loss", "kl", "reverse_kl", "jsd", "kl_top_k", "uld", "ce"].filter(k => log.some(s => present(s[k]))).map(k => ({ x: steps, y: log.map(s => s[k]), mode: "lines", name: k })), { xaxis: { title: { text: "step" } } });
  plot(plots, "Learning rate and gradient norm", [{ x: steps, y: log.map(s => s.lr), mode: "lines", name: "learning rate" },
    { x: steps, y: log.map(s => s.grad_norm), mode: "lines", name: "gradient norm", yaxis: "y2" }], { xaxis: { title: { text: "step" } }, yaxis2: { overlaying: "y", side: "right", showgrid: false } });
  if (log.some(s => present(s.update_rms))) plot(plots, "Update of the factors, root mean square", [{ x: steps, y: log.map(s => s.update_rms), mode: "lines" }], { xaxis: { title: { text: "step" } } });
  if (log.some(s => present(s.delta_norm_ratio))) plot(plots, "Largest delta beside its weight, spectral norms", [{ x: steps, y: log.map(s => s.delta_norm_ratio), mode: "lines" }], { xaxis: { title: { text: "step" } } });
  if (log.some(s => present(s.orthogonality_error))) plot(plots, "Orthogonality error of Muon's directions", [{ x: steps, y: log.map(s => s.orthogonality_error), mode: "lines" }], { xaxis: { title: { text: "step" } } });
  if (log.some(s => present(s.flop_share))) plot(plots, "Share of the machine's product rate, %", [{ x: steps, y: log.map(s => present(s.flop_share) ? 100 * s.flop_share : null), mode: "lines" }], { xaxis: { title: { text: "step" } } });
}
