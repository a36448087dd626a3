// ---- the page ---------------------------------------------------------------------------------------------------------

$("facts").textContent = page.facts;
$("kinds").replaceChildren(...KINDS.filter((kind) => page.totals[kind]).map((kind) => {
  const swatch = element("i");
  swatch.style.background = KIND_HUES[kind];
  const total = page.totals[kind];
  const chip = element("button", { type: "button", title: `Show only: ${kind}` }, swatch, kind,
    element("span", { textContent: `${number(total.tensors)} · ${size(total.bytes)}` }));
  chip.setAttribute("aria-pressed", "false");
  chip.onclick = () => {
    state.kind = state.kind === kind ? null : kind;
    for (const other of $("kinds").querySelectorAll("button")) other.setAttribute("aria-pressed", other === chip && state.kind === kind);
    drawTree();
  };
  return element("li", {}, chip);
}));
const first = page.tensors.filter((tensor) => tensor.picture && tensor.picture.first);
$("filters").hidden = !first.length;
for (const tensor of first) {
  const title = element("a", { href: `#${encodeURIComponent(tensor.name)}`, textContent: `${tensor.name} ${shape(tensor)}` });
  $("gallery").append(element("div", {}, element("p", {}, title), picture(tensor, 5)));
}

function fromAddress() {
  const found = byName.get(decodeURIComponent(location.hash.slice(1)));
  if (!found || found.tensor === state.chosen) return;
  for (let up = found.parent; up; up = up.parent) state.open.add(up.path);
  drawTree();
  choose(found.tensor);
  const row = rowOf(found.path);
  if (row) row.scrollIntoView({ block: "nearest" });
}

let waiting = 0;
$("search").oninput = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(drawTree); };
$("colour").onchange = drawMap;
document.onkeydown = (event) => {
  if (event.key === "/" && document.activeElement !== $("search")) { event.preventDefault(); $("search").focus(); }
  if (event.key === "Escape" && document.activeElement === $("search")) { $("search").value = ""; drawTree(); }
};
window.onhashchange = fromAddress;
window.onresize = () => { drawMap(); drawTensor(); };
matchMedia("(prefers-color-scheme: dark)").onchange = drawMap;
if (page.tensors.length) state.chosen = page.tensors.reduce((a, b) => ((b.bytes || 0) > (a.bytes || 0) ? b : a));
drawTree();
drawTensor();
drawMap();
fromAddress();
document.body.dataset.ready = Math.round(performance.now()); // milliseconds from opening the page
