// The facts at the top; then everything is drawn, once the page stands.
const facts = document.getElementById("facts");
for (const [name, value] of Object.entries(D.facts || {})) facts.append(el("div", { class: "fact" }, el("b", {}, value), el("span", { class: "soft" }, name)));
for (const draw of drawings) draw();
