// ---- one tensor -----------------------------------------------------------------------------------------------------

function choose(tensor) {
  const before = $("tree").querySelector("[aria-current]");
  if (before) before.removeAttribute("aria-current");
  state.chosen = tensor;
  const row = rowOf(tensor.name);
  if (row) row.setAttribute("aria-current", "true");
  history.replaceState(null, "", `#${encodeURIComponent(tensor.name)}`);
  drawTensor();
  drawMap();
}

function fact(word, value, className = "") {
  return element("div", {}, element("dt", { textContent: word }), element("dd", { className }, value));
}

function drawTensor() {
  const tensor = state.chosen, section = $("tensor");
  if (!tensor) {
    section.replaceChildren(element("p", { className: "hint", textContent: "Choose a tensor in the tree or in the map to see its values." }));
    return;
  }
  const facts = [fact("dtype", tensor.dtype), fact("shape", shape(tensor)), fact("parameters", number(tensor.parameters)),
    fact("bytes", number(tensor.bytes)), fact("kind", tensor.kind)];
  if (tensor.of) {
    const link = element("a", { href: `#${encodeURIComponent(tensor.of)}`, textContent: tensor.of });
    const wide = fact(tensor.kind === "slot" ? "optimizer slot of" : "average of", link);
    wide.className = "wide";
    facts.push(wide);
  }
  const parts = [element("h2", { textContent: tensor.name }), element("dl", {}, ...facts)];
  if (tensor.statistics) parts.push(element("h3", { textContent: "Values" }), element("dl", {}, ...statistics(tensor.statistics)));
  if (tensor.counts) parts.push(...histogram(tensor));
  if (tensor.values) parts.push(element("h3", { textContent: "All values" }), element("pre", { textContent: tensor.values }));
  if (tensor.picture) parts.push(element("h3", { textContent: "Filters" }), picture(tensor, 5));
  if (tensor.problem) parts.push(element("p", { className: "bad", textContent: tensor.problem }));
  else if (!tensor.statistics) parts.push(element("p", { className: "hint", textContent: page.unread }));
  section.replaceChildren(...parts);
}

function statistics(each) {
  const made = ["min", "max", "mean", "std"].filter((word) => each[word] !== null).map((word) => fact(word, number(each[word])));
  made.push(fact("zeros", number(each.zeros)));
  for (const [word, title] of [["nan", "NaN"], ["inf", "Inf"]]) made.push(fact(title, number(each[word]), each[word] ? "bad" : ""));
  return made;
}

function histogram(tensor) {
  const toggle = element("input", { type: "checkbox", checked: Math.max(...tensor.counts) > tensor.parameters / 2 });
  const holder = element("div");
  const draw = () => holder.replaceChildren(bars(tensor.counts, tensor.statistics.min, tensor.statistics.max, toggle.checked));
  toggle.onchange = draw;
  draw();
  const head = element("h3", { textContent: `Histogram, ${tensor.counts.length} bins  ` });
  head.append(element("label", {}, toggle, " logarithmic counts"));
  return [head, holder];
}

function bars(counts, low, high, logarithmic) {
  const svg = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const width = Math.max(280, $("tensor").clientWidth - 26), floor = 150, scale = (count) => logarithmic ? Math.log1p(count) : count;
  const top = scale(Math.max(...counts)) || 1, step = width / counts.length, span = (high - low) / counts.length;
  const chart = svg("svg", { class: "histogram", viewBox: `0 0 ${width} 170`, preserveAspectRatio: "none", role: "img", "aria-label": "Histogram of the values" });
  counts.forEach((count, at) => {
    const height = count ? Math.max(1, 140 * scale(count) / top) : 0;
    const bar = svg("rect", { x: at * step, y: floor - height, width: Math.max(0.5, step - 1), height });
    bar.append(svg("title", {}, `${number(low + at * span)} to ${number(low + (at + 1) * span)}: ${plural(count, "value")}`));
    chart.append(bar);
  });
  chart.append(svg("line", { x1: 0, y1: floor, x2: width, y2: floor }));
  if (low < 0 && high > 0) {
    const zero = width * -low / (high - low);
    chart.append(svg("line", { x1: zero, y1: 4, x2: zero, y2: floor + 4 }));
    if (zero > 90 && zero < width - 90) chart.append(svg("text", { x: zero, y: 166, "text-anchor": "middle" }, "0"));
  }
  chart.append(svg("text", { x: 0, y: 166 }, number(low)), svg("text", { x: width, y: 166, "text-anchor": "end" }, number(high)));
  return chart;
}

function picture(tensor, zoom) {
  const { height, width, channels, count, pixels, note } = tensor.picture;
  const bytes = Uint8Array.from(atob(pixels), (char) => char.charCodeAt(0));
  const scale = Math.max(1, Math.round(zoom * 7 / Math.max(height, width)));
  const room = Math.max(240, $("tensor").clientWidth - 30);
  const most = Math.max(1, Math.floor(room / (scale * width + scale)));
  const rows = Math.ceil(count / most);
  const columns = Math.ceil(count / rows);
  const canvas = element("canvas", { width: columns * (width + 1) - 1, height: rows * (height + 1) - 1 });
  canvas.style.width = `${canvas.width * scale}px`;
  const pen = canvas.getContext("2d");
  for (let filter = 0; filter < count; filter += 1) {
    const image = pen.createImageData(width, height);
    for (let at = 0; at < width * height; at += 1) {
      const from = (filter * width * height + at) * channels;
      for (let channel = 0; channel < 3; channel += 1) image.data[4 * at + channel] = bytes[from + (channels === 3 ? channel : 0)];
      image.data[4 * at + 3] = 255;
    }
    pen.putImageData(image, (filter % columns) * (width + 1), Math.floor(filter / columns) * (height + 1));
  }
  return element("figure", {}, canvas, element("figcaption", { textContent: note }));
}
