// ---- treemap: squarified, after Bruls, Huizing and van Wijk (2000) --------------------------------------------------

let tiles = [];

function parts(each) {
  const found = [...each.children.values()].filter((child) => child.bytes > 0);
  if (each.tensor && each.tensor.bytes && each.children.size) {
    found.push({ ...node(each.name, each.path, each), tensor: each.tensor, bytes: each.tensor.bytes, tensors: 1, parameters: each.tensor.parameters });
  }
  return found.sort((a, b) => b.bytes - a.bytes);
}

function squarify(items, x, y, width, height) {
  const placed = [];
  const total = items.reduce((sum, item) => sum + item.bytes, 0);
  const scale = width * height / (total || 1);
  let at = 0;
  while (at < items.length && width > 0.5 && height > 0.5) {
    const side = Math.min(width, height);
    let row = [], area = 0, worst = Infinity;
    for (; at < items.length; at += 1) {
      const next = items[at].bytes * scale;
      const sum = area + next;
      const first = row.length ? row[0].bytes * scale : next;
      const ratio = Math.max(side * side * first / (sum * sum), sum * sum / (side * side * next));
      if (ratio > worst) break;
      row.push(items[at]);
      area = sum;
      worst = ratio;
    }
    const thickness = area / side;
    let along = 0;
    for (const item of row) {
      const length = item.bytes * scale / thickness;
      placed.push(width >= height ? { item, x, y: y + along, width: thickness, height: length } : { item, x: x + along, y, width: length, height: thickness });
      along += length;
    }
    if (width >= height) { x += thickness; width -= thickness; } else { y += thickness; height -= thickness; }
  }
  return placed;
}

function drawMap() {
  const canvas = $("map"), box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.textBaseline = "middle";
  tiles = [];
  squarify(parts(state.view), 0, 0, box.width, box.height).forEach((place, position) => tile(pen, place, 0, position));
  if (!tiles.length) {
    pen.fillStyle = getComputedStyle(document.body).color;
    pen.font = "13px system-ui, sans-serif";
    pen.fillText("Nothing here has a known size.", 10, 20);
  }
  $("crumbs").replaceChildren(...chain(state.view).map((each) =>
    element("li", {}, element("button", { type: "button", textContent: each.name || "all", onclick: () => look(each) }))),
    element("li", { textContent: `${plural(state.view.tensors, "tensor")}, ${size(state.view.bytes)}`, className: "hint" }));
}

function chain(each) {
  const found = [];
  for (let up = each; up; up = up.parent) found.unshift(up);
  return found;
}

// A scope that is nearly all one thing, as a layer is its weights, is drawn as that thing.
function shownAs(item) {
  let name = item.name;
  let inner = item;
  for (let next = mainChild(inner, item.bytes); next; next = mainChild(inner, item.bytes)) {
    inner = next;
    name += `/${inner.name}`;
  }
  return { item: inner, name };
}

function tile(pen, place, depth, position) {
  const { x, y, width, height } = place;
  if (width < 1.5 || height < 1.5) return;
  const { item, name } = shownAs(place.item);
  const isLeaf = !item.children.size;
  const isWhole = isLeaf || width < 64 || height < 44; // too small to look into
  const hue = $("colour").value === "scope" ? HUES[position % HUES.length] : KIND_HUES[mainKind(item)];
  tiles.push({ x, y, width, height, item });
  pen.fillStyle = shade(hue, isWhole ? 1 - 0.06 * Math.min(depth, 3) : 0.72);
  pen.fillRect(x, y, width - 1, height - 1);
  if (item.tensor && item.tensor === state.chosen && isLeaf) {
    for (const [colour, inset] of [["#101418", 1], ["#ffffff", 3]]) { // seen on light and on dark ground
      pen.strokeStyle = colour;
      pen.lineWidth = 2;
      pen.strokeRect(x + inset, y + inset, width - 1 - 2 * inset, height - 1 - 2 * inset);
    }
  }
  const head = isWhole ? 0 : 16;
  if (head || height > 13) {
    pen.fillStyle = "#ffffff";
    pen.font = `${depth === 0 ? "600 12" : "11"}px system-ui, sans-serif`;
    pen.fillText(fitted(pen, width - 8, name, place.item.name), x + 4, y + (head || Math.min(height, 20)) / 2 + 0.5);
    if (isWhole && height > 34 && width > 54) pen.fillText(size(place.item.bytes), x + 4, y + 26);
  }
  if (isWhole) return;
  squarify(parts(item), x + 2, y + head, width - 4, height - 3 - head).forEach((inner) => tile(pen, inner, depth + 1, position));
}

function mainKind(item) {
  if (item.tensor) return item.tensor.kind;
  return mainKind([...item.children.values()].reduce((a, b) => (b.bytes > a.bytes ? b : a)));
}

// The first text that fits; else the end of the last, which is where the names of siblings differ.
function fitted(pen, width, ...texts) {
  const fits = (text) => pen.measureText(text).width <= width;
  const whole = texts.find(fits);
  if (whole !== undefined) return whole;
  const last = texts[texts.length - 1];
  for (let from = 1; from < last.length - 1; from += 1) if (fits(`…${last.slice(from)}`)) return `…${last.slice(from)}`;
  return "";
}

function shade(hex, factor) {
  const channels = [1, 3, 5].map((at) => Math.round(parseInt(hex.slice(at, at + 2), 16) * factor));
  return `rgb(${channels.join(",")})`;
}

function tileAt(event) {
  const box = $("map").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  for (let at = tiles.length - 1; at >= 0; at -= 1) { // the innermost was pushed last
    const each = tiles[at];
    if (x >= each.x && x < each.x + each.width && y >= each.y && y < each.y + each.height) return each;
  }
  return null;
}

$("map").onmousemove = (event) => {
  const hit = tileAt(event), tip = $("tip");
  tip.hidden = !hit;
  if (!hit) return;
  const { item } = hit;
  const what = item.children.size ? plural(item.tensors, "tensor") : `${item.tensor.dtype}${shape(item.tensor)}, ${item.tensor.kind}`;
  tip.textContent = `${item.path}: ${size(item.bytes)} (${percent(item.bytes, root.bytes)}), ${what}`;
  tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 16}px`;
};
$("map").onmouseleave = () => { $("tip").hidden = true; };
$("map").onclick = (event) => {
  const hit = tileAt(event);
  if (!hit) return;
  if (!hit.item.children.size) choose(hit.item.tensor);
  else look(hit.item);
};

function look(each) {
  if (!each.children.size) return;
  state.view = each;
  drawMap();
}
