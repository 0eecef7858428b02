"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// Okabe and Ito's palette, told apart with every kind of colour blindness; with a shape each, 40 classes
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7a7a7a"];
const SHAPES = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-3.7-3.7h7.4v7.4h-7.4z", "M0-5L4.6 3.6h-9.2z", "M0-5.2L4 0 0 5.2-4 0z", "M-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z"];

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties))
    if (key in node) node[key] = value; else node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const labelOf = item => { const k = D.items[item][1]; return k < 0 ? "" : D.labels[k] ?? String(k); };
const idOf = item => D.items[item][0];
const number = (value, digits = 3) => value === null || value === undefined ? "–" : value.toFixed(digits);

function thumb(item) {
  const spoken = [labelOf(item), idOf(item)].filter(Boolean).join(", ");
  const at = D.pictures ? D.pictures.of[item] : -1;
  if (at < 0) return make("span", { className: "thumb none", title: spoken }, labelOf(item) || "no picture");
  const node = make("span", { className: `thumb sheet${Math.floor(at / (D.pictures.columns * D.pictures.rows))}`, role: "img", title: spoken, "aria-label": spoken });
  node.style.setProperty("--x", at % D.pictures.columns);
  node.style.setProperty("--y", Math.floor(at / D.pictures.columns) % D.pictures.rows);
  return node;
}

function header() {
  const s = D.summary, shown = [["Precision@1", s.precision_at_1], [`Recall@${s.k}`, s.recall_at_k], ["MAP@R", s.map_at_r], [`MRR@${s.k}`, s.mrr]];
  const tile = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
  $("measures").append(...shown.filter(([, v]) => v !== null).map(([n, v]) => tile(n, number(v))),
    tile("Queries", s.n_queries.toLocaleString("en")), tile("Gallery", s.n_gallery.toLocaleString("en")));
  $("facts").append(...D.facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  if (D.note) { $("note").textContent = D.note; $("note").hidden = false; }
  for (const [id, there] of [["classes", s.classes.length], ["pairs", D.pairs.length], ["outliers", D.outliers.length]])
    if (!there) { $(id).remove(); document.querySelector(`nav [data-for=${id}]`).remove(); }
  document.documentElement.style.setProperty("--columns", D.pictures ? D.pictures.columns : 1);
  if (D.pictures && D.pictures.cell < 40) document.body.classList.add("pixels");
}

const cards = [];
function neighbour([item, value, hit]) {
  const word = hit < 0 ? "" : hit ? "same class" : "another class";
  const node = make("li", { className: hit < 0 ? "" : hit ? "hit" : "miss" }, make("span", { className: "frame" }, thumb(item)), make("b", {}, hit === 0 ? labelOf(item) : ""), number(value));
  if (word) node.title = `${word}: ${labelOf(item)}`;
  return node;
}

function queries() {
  D.queries.forEach((query, place) => {
    const label = labelOf(query.item), id = idOf(query.item);
    const score = query.score === null ? "" : `AP@R ${number(query.score)}`;
    const words = query.neighbors.map(([item, value, hit]) => make("li", {}, `${idOf(item)}${labelOf(item) ? ` (${labelOf(item)})` : ""}, ${number(value, 4)}${hit === 0 ? ", another class" : ""}`));
    const node = make("article", { className: "card", id: `query-${query.item}`, tabIndex: -1, "aria-label": `Query ${id}` },
      make("div", { className: "asked" }, thumb(query.item), make("div", {}, make("strong", {}, label), make("div", { className: "name" }, id), make("div", { className: "score" }, score))),
      make("ol", { className: "found" }, ...query.neighbors.map(neighbour)),
      make("details", {}, make("summary", {}, "names and values"), make("ol", {}, ...words)));
    const hits = query.neighbors.map(n => n[2]);
    cards.push({ node, place, score: query.score ?? hits.filter(h => h === 1).length, label, text: `${id} ${label}`.toLowerCase(), hits });
  });
  $("cards").append(...cards.map(card => card.node));
  const labelled = cards.some(card => card.hits.some(h => h >= 0));
  if (!labelled) { $("hit-legend").remove(); $("outcome").parentNode.remove(); $("order").parentNode.remove(); }
  const names = [...new Set(cards.map(card => card.label))].filter(Boolean).sort(new Intl.Collator("en", { numeric: true }).compare);
  if (names.length) $("class").append(...names.map(name => make("option", { value: name }, name))); else $("class").parentNode.remove();
  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", event => event.preventDefault());
  filter();
}

const valueOf = id => $(id) ? $(id).value : "";
function filter() {
  const text = valueOf("text").toLowerCase(), name = valueOf("class"), outcome = valueOf("outcome"), order = valueOf("order");
  const tests = { "": () => true, first: h => h[0] === 0, any: h => h.includes(0), none: h => !h.includes(1) };
  let shown = 0;
  for (const card of cards) {
    card.node.hidden = !(card.text.includes(text) && (!name || card.label === name) && tests[outcome](card.hits));
    shown += !card.node.hidden;
  }
  const sign = { worst: 1, best: -1 }[order] ?? 0;
  $("cards").append(...[...cards].sort((a, b) => sign * (a.score - b.score) || a.place - b.place).map(card => card.node));
  $("count").textContent = `${shown} of ${cards.length} queries`;
}

function showClass(name) {
  $("class").value = name;
  if ($("outcome")) $("outcome").value = "";
  $("text").value = "";
  filter();
  $("queries").scrollIntoView();
  $("class").focus({ preventScroll: true });
}

function classes() {
  if (!$("classes")) return;
  const columns = [["name", "Class"], ["n", "Queries"], ["precision_at_1", "P@1"], ["recall_at_k", `R@${D.summary.k}`], ["mrr", "MRR"], ["map_at_r", "MAP@R"]];
  const rows = [...D.summary.classes], collator = new Intl.Collator("en", { numeric: true });
  let by = "map_at_r", up = true;
  const draw = () => {
    rows.sort((a, b) => (up ? 1 : -1) * (by === "name" ? collator.compare(a.name, b.name) : (a[by] ?? 0) - (b[by] ?? 0)));
    $("table").tBodies[0].replaceChildren(...rows.map(row => make("tr", {}, ...columns.map(([key]) => {
      if (key === "name") return make("td", {}, make("button", { type: "button", onclick: () => showClass(row.name) }, row.name));
      if (key !== "map_at_r") return make("td", {}, key === "n" ? String(row.n) : number(row[key]));
      const fill = make("i");
      fill.style.width = `${100 * (row[key] ?? 0)}%`;
      return make("td", {}, number(row[key]), make("span", { className: "bar", "aria-hidden": "true" }, fill));
    }))));
    heads.forEach((head, i) => head.setAttribute("aria-sort", columns[i][0] !== by ? "none" : up ? "ascending" : "descending"));
  };
  const heads = columns.map(([key, name]) => {
    const press = () => { up = by === key ? !up : key === "name" || key !== "n"; by = key; draw(); };
    return make("th", { scope: "col" }, make("button", { type: "button", onclick: press }, name));
  });
  $("table").tHead.append(make("tr", {}, ...heads));
  draw();
  if (!D.summary.confusions.length) return $("confused").remove();
  $("confusions").append(...D.summary.confusions.slice(0, 12).map(c => make("li", {}, make("span", {}, `${c.query} taken for ${c.nearest}`), make("b", {}, String(c.n)))));
}

function shape(style, className = "") {
  const node = document.createElementNS(SVG, "path");
  node.setAttribute("d", SHAPES[Math.floor(style / COLOURS.length) % SHAPES.length]);
  node.setAttribute("fill", COLOURS[style % COLOURS.length]);
  node.setAttribute("class", className);
  return node;
}

function map() {
  const points = D.map.points, plot = $("plot"), tip = $("tip"), asked = new Map(D.queries.map(q => [q.item, q]));
  const names = [...new Set(points.map(([item]) => labelOf(item)))].sort(new Intl.Collator("en", { numeric: true }).compare);
  $("map-hint").textContent = `${points.length} images by ${{ pca: "PCA", tsne: "t-SNE", umap: "UMAP" }[D.map.method]}; queries are outlined. Point at one, or walk with the arrow keys.`;
  const SIZE = 600, PAD = 14, along = k => points.map(point => point[k] * SIZE);
  const [left, top] = [Math.min(...along(1)), SIZE - Math.max(...along(2))];
  plot.setAttribute("viewBox", [left - PAD, top - PAD, Math.max(...along(1)) - left + 2 * PAD, SIZE - Math.min(...along(2)) - top + 2 * PAD].join(" "));
  const grow = Math.max(1, plot.viewBox.baseVal.width / plot.clientWidth);  // a point stays as large on a phone
  const marks = points.map(([item, x, y], i) => {
    const node = shape(names.indexOf(labelOf(item)), asked.has(item) ? "point asked-point" : "point");
    node.setAttribute("transform", `translate(${x * SIZE} ${(1 - y) * SIZE}) scale(${grow})`);
    node.addEventListener("pointerenter", () => show(i));
    node.addEventListener("click", () => show(i));
    plot.append(node);
    return node;
  });
  let current = -1;
  function show(i) {
    if (current >= 0) marks[current].classList.remove("on");
    current = i;
    marks[i].classList.add("on");
    const item = points[i][0], box = marks[i].getBoundingClientRect(), frame = plot.parentNode.getBoundingClientRect();
    const words = make("div", {}, make("strong", {}, labelOf(item)), make("div", {}, idOf(item)), asked.has(item) ? make("div", {}, "a query; Enter goes to it") : "");
    tip.replaceChildren(thumb(item), words);
    tip.classList.add("shown");
    const left = box.left - frame.left + 16, top = box.top - frame.top + 16;
    tip.style.left = `${Math.max(4, Math.min(left, frame.width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${top + tip.offsetHeight > frame.height ? top - tip.offsetHeight - 28 : top}px`;
  }
  const hide = () => { tip.classList.remove("shown"); if (current >= 0) marks[current].classList.remove("on"); };
  const walk = points.map((_, i) => i).sort((a, b) => points[a][1] - points[b][1]);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (event.key === "Enter" && current >= 0 && asked.has(points[current][0])) jump(points[current][0]);
    if (!step) return;
    event.preventDefault();
    let at = current < 0 ? (step > 0 ? -1 : 0) : walk.indexOf(current);
    for (let tries = 0; tries < walk.length; tries++) {
      at = (at + step + walk.length) % walk.length;
      if (!marks[walk[at]].classList.contains("off")) return show(walk[at]);
    }
  });
  function jump(item) {
    for (const id of ["class", "outcome", "text"]) if ($(id)) $(id).value = "";
    filter();
    const card = $(`query-${item}`);
    card.scrollIntoView({ block: "center" });
    card.focus({ preventScroll: true });
  }
  if (names.length === 1 && !names[0]) return;
  $("map-legend").append(...names.map((name, style) => {
    const key = document.createElementNS(SVG, "svg");
    key.setAttribute("viewBox", "-7 -7 14 14");
    key.setAttribute("aria-hidden", "true");
    key.append(shape(style));
    const button = make("button", { type: "button", "aria-pressed": "true" }, key, name || "no label");
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      marks.forEach((mark, i) => { if (labelOf(points[i][0]) === name) mark.classList.toggle("off", !on); });
      hide();
    });
    return button;
  }));
}

function lists() {
  const side = item => D.items[item][2] ? "query " : D.summary.leave_one_out ? "" : "gallery ";
  if ($("pairs")) {
    const across = D.summary.leave_one_out ? "pairs within the gallery" : "pairs of a query and a gallery image: the same image in both would be a leak";
    $("pairs-hint").textContent = D.threshold === null ? `The nearest ${across}.` : `At ${D.threshold}, ${across}; the nearest ${D.pairs.length} of them.`;
    $("pair-list").append(...D.pairs.map(([a, b, value]) => {
      const differ = labelOf(a) !== labelOf(b) && labelOf(a) && labelOf(b);
      const words = make("div", {}, make("b", {}, number(value, 4)), make("div", {}, side(a) + idOf(a)), make("div", {}, side(b) + idOf(b)));
      if (differ) words.append(make("div", { className: "differ" }, `✕ labels differ: ${labelOf(a)}, ${labelOf(b)}`));
      return make("li", {}, thumb(a), thumb(b), words);
    }));
  }
  if ($("outliers"))
    $("outlier-list").append(...D.outliers.map(([item, score]) => make("li", {}, thumb(item), make("div", {}, make("b", {}, number(score, 4)), make("div", {}, labelOf(item)), make("div", {}, idOf(item))))));
}

header();
queries();
classes();
map();
lists();
document.documentElement.dataset.ready = "true";
