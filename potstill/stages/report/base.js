// What every section is drawn with: D (the data), section, table, plot, grid.
const D = JSON.parse(document.getElementById("data").textContent);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) node.append(child);
  return node;
};
const present = value => value !== undefined && value !== null;
const number = (value, digits = 3) => !present(value) ? "–" : typeof value !== "number" ? String(value)
  : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2)
  : Number(value.toPrecision(Math.max(digits, Math.trunc(Math.abs(value)).toString().length))).toString();
const percent = value => present(value) ? (100 * value).toFixed(1) + " %" : "–";
const megabytes = value => !present(value) ? "–" : value >= 1e9 ? (value / 1e9).toFixed(2) + " GB" : (value / 1e6).toFixed(1) + " MB";
const duration = seconds => !present(seconds) ? "–" : seconds < 60 ? seconds.toFixed(1) + " s"
  : Math.floor(seconds / 60) + " min " + String(Math.round(seconds % 60)).padStart(2, "0") + " s";

function section(id, title, note) {
  const body = el("section", { id });
  body.append(el("h2", {}, title));
  if (note) body.append(el("p", { class: "note" }, note));
  document.getElementById("sections").append(body);
  document.getElementById("nav").append(el("a", { href: "#" + id }, title));
  return body;
}
function table(parent, heads, rows, finalRow) {
  const body = el("tbody");
  rows.forEach((row, index) => {
    const line = el("tr", index === finalRow ? { class: "final" } : {});
    for (const cell of row) line.append(cell instanceof Node ? cell : el("td", {}, String(cell)));
    body.append(line);
  });
  const head = el("tr");
  for (const name of heads) head.append(el("th", {}, name));
  parent.append(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), body)));
}
const drawings = [];
const palette = ["#d9772b", "#2b7bd9", "#3aa76d", "#9a5bd0", "#c2405b", "#7a8794"];
function plot(parent, title, traces, layout = {}) {
  // The title stands above the drawing, where a legend of several lines does not run into it.
  const box = el("div");
  parent.append(el("div", { class: "plot" }, el("div", { class: "title" }, title), box));
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  const { xaxis, yaxis, yaxis2, ...rest } = layout;
  // Drawn once the whole page stands: a box gets its width only when its neighbours are there.
  drawings.push(() => Plotly.newPlot(box, traces, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: palette,
    font: { color: css("--ink"), size: 12 }, margin: { l: 56, r: 24, t: 24, b: 48 }, height: 300, legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom" },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...(yaxis2 ? { yaxis2: { ...axis, ...yaxis2 } } : {}), ...rest
  }, { responsive: true, displayModeBar: false }));
  return box;
}
const grid = parent => { const node = el("div", { class: "grid" }); parent.append(node); return node; };

document.getElementById("title").textContent = "potstill: " + D.name;
document.title = "potstill: " + D.name;
document.getElementById("subtitle").textContent = [D.description, D.machine, "potstill " + D.version].filter(Boolean).join(" · ");
