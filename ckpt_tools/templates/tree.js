"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const KINDS = ["weight", "statistic", "slot", "average", "step", "other"];
const HUES = ["#4e79a7", "#4a8a41", "#b5621a", "#95608a", "#2f8280", "#c04a4f", "#8f7414", "#8f6d57", "#6b6bab", "#65753f"];
const KIND_HUES = { weight: "#4e79a7", statistic: "#4a8a41", slot: "#b5621a", average: "#95608a", step: "#c04a4f", other: "#757575" };
const LISTED = 300; // search results shown at once

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size < 1e-4 || size >= 1e15 ? value.toExponential(3) : String(Number(value.toPrecision(6)));
}

function size(bytes) {
  if (bytes === null) return "–";
  let value = bytes, unit = 0;
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  while (value >= 999.95 && unit < 5) { value /= 1000; unit += 1; }
  return unit ? `${value.toFixed(1)} ${units[unit]}` : `${bytes} byte${bytes === 1 ? "" : "s"}`;
}

const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const percent = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)}%` : "";
const shape = (tensor) => `[${tensor.shape.join(",")}]`;

// ---- the tree of scopes -------------------------------------------------------------------------------------------
// A path can be a variable and a scope at once: net/weights holds net/weights/Momentum.

function node(name, path, parent) {
  return { name, path, parent, children: new Map(), tensor: null, bytes: 0, parameters: 0, tensors: 0 };
}

// The child that holds nearly all of `bytes`, if there is one.
function mainChild(each, bytes) {
  const largest = [...each.children.values()].reduce((a, b) => (b.bytes > a.bytes ? b : a), { bytes: -1 });
  return largest.bytes >= 0.97 * bytes ? largest : null;
}

const root = node("", "", null);
const byName = new Map();
for (const tensor of page.tensors) {
  let at = root;
  let path = "";
  for (const part of tensor.name.split("/")) {
    path = path ? `${path}/${part}` : part;
    if (!at.children.has(part)) at.children.set(part, node(part, path, at));
    at = at.children.get(part);
  }
  at.tensor = tensor;
  byName.set(tensor.name, at);
  for (let up = at; up; up = up.parent) {
    up.bytes += tensor.bytes || 0;
    up.parameters += tensor.parameters;
    up.tensors += 1;
  }
}

const state = { view: root, chosen: null, kind: null, open: new Set() };
for (let next = mainChild(root, root.bytes); next && next.children.size; next = mainChild(next, root.bytes)) {
  state.view = next;
  state.open.add(next.path);
}

function treeRow(each, label) {
  const isScope = each.children.size > 0;
  const row = element("button", { className: "row", title: each.path, type: "button" });
  row.dataset.path = each.path;
  const twist = element("span", { className: "twist", textContent: isScope && !label ? (state.open.has(each.path) ? "▼" : "▶") : "" });
  const name = element("span", { className: label ? "name path" : "name" });
  name.append(...(label || [each.name]));
  const bar = element("b");
  bar.style.width = `${100 * each.bytes / (root.bytes || 1)}%`;
  row.append(twist, name, element("span", { className: "size", textContent: each.tensor && each.tensor.bytes === null ? "" : size(each.bytes) }),
    element("span", { className: "share" }, bar));
  if (isScope && !label) row.setAttribute("aria-expanded", state.open.has(each.path));
  if (each.tensor && each.tensor === state.chosen) row.setAttribute("aria-current", "true");
  row.onclick = () => label ? choose(each.tensor) : pressed(each, row);
  return row;
}

function pressed(each, row) {
  if (each.children.size) {
    const opened = !state.open.has(each.path);
    opened ? state.open.add(each.path) : state.open.delete(each.path);
    row.parentElement.replaceWith(treeItem(each));
    if (opened) look(each);
    const again = rowOf(each.path);
    if (again) again.focus({ preventScroll: true });
  }
  if (each.tensor) choose(each.tensor);
}

function treeItem(each) {
  const item = element("li", {}, treeRow(each));
  if (each.children.size && state.open.has(each.path)) item.append(treeList(each)); // closed scopes are not drawn
  return item;
}

const treeList = (each) => element("ul", {}, ...[...each.children.values()].map(treeItem));
const rowOf = (path) => $("tree").querySelector(`[data-path="${CSS.escape(path)}"]`);

function drawTree() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length && !state.kind) {
    $("found").textContent = plural(page.tensors.length, "tensor");
    $("tree").replaceChildren(...[...root.children.values()].map(treeItem));
    return;
  }
  const found = page.tensors.filter((tensor) =>
    (!state.kind || tensor.kind === state.kind) && words.every((word) => tensor.name.toLowerCase().includes(word)));
  const bytes = found.reduce((sum, tensor) => sum + (tensor.bytes || 0), 0);
  $("found").textContent = `${plural(found.length, "tensor")}, ${size(bytes)}` +
    (found.length > LISTED ? `; the first ${LISTED} are shown` : "");
  $("tree").replaceChildren(...found.slice(0, LISTED).map((tensor) =>
    element("li", {}, treeRow(byName.get(tensor.name), marked(tensor.name, words)))));
}

function marked(name, words) {
  const hit = new Array(name.length).fill(false);
  const lower = name.toLowerCase();
  for (const word of words) {
    for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + 1)) hit.fill(true, at, at + word.length);
  }
  const pieces = [];
  for (let at = 0, end; at < name.length; at = end) {
    end = at + 1;
    while (end < name.length && hit[end] === hit[at]) end += 1;
    pieces.push(hit[at] ? element("mark", { textContent: name.slice(at, end) }) : name.slice(at, end));
  }
  return pieces;
}
