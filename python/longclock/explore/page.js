"use strict";
// What is exact and what is a grid: longclock/explore/view.py.
const page = JSON.parse(document.getElementById("data").textContent);
const DAY = 86400, R = 100;
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
const still = matchMedia("(prefers-reduced-motion: reduce)");
let model, tables, user, candidate = 0, asked = 0;

// The model, at a second of the day.

function apart(a, b) {
  const x = Math.abs(a - b);
  return Math.min(x, DAY - x);
}

const clock = (m) => ((user.time[m] % DAY) + DAY) % DAY;

/** Larger first, NaN largest of all; of equal ones the older behaviour. */
function order(a, b) {
  if (a.score === b.score || (Number.isNaN(a.score) && Number.isNaN(b.score))) return a.m - b.m;
  return Number.isNaN(a.score) || a.score > b.score ? -1 : 1;
}

/** The k behaviours with the largest fp32 sums, best first. */
function search(second) {
  const s = tables[model.search], base = candidate * user.rows.length, found = [];
  for (let m = user.leaving.filter((leaves) => leaves < second).length; m < user.time.length; m++) {
    const content = user.content[base + user.row[m]], time = s[apart(clock(m), second)];
    found.push({ m, content, time, score: Math.fround(content + time) });
  }
  return found.sort(order).slice(0, model.k);
}

/** Each head's softmax over the picks: picks get `heads`, and their mean `attention`. */
function attend(picks, second) {
  for (const pick of picks) pick.heads = [];
  model.heads.forEach((table, head) => {
    const base = (candidate * model.heads.length + head) * user.rows.length;
    const alpha = picks.map(({ m }) => user.heads[base + user.row[m]] + tables[table][apart(clock(m), second)]);
    const most = Math.max(...alpha), weights = alpha.map((x) => Math.exp(x - most));
    const sum = weights.reduce((a, b) => a + b, 0);
    picks.forEach((pick, place) => pick.heads.push(weights[place] / sum));
  });
  for (const pick of picks) pick.attention = pick.heads.reduce((a, b) => a + b, 0) / model.heads.length;
}

const gridOf = (second) => Math.min(Math.round(second / model.step), DAY / model.step - 1);

/** Candidates by their score at a place of the grid, best first; of equal ones the first given. */
function ranked(place) {
  const count = user.candidates.length, of = (c) => user.ranking[place * count + c];
  return [...user.candidates.keys()].sort((a, b) => of(b) - of(a) || a - b);
}

// What is shown of it.

const text = (second) => `${Math.floor(second / 3600)}:${String(Math.floor((second % 3600) / 60)).padStart(2, "0")}`;

function node(name, attributes = {}, ...inside) {
  const made = ["svg", "path", "circle", "line", "text", "title", "rect"].includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

function at(second, radius) {
  const angle = (second / DAY) * 2 * Math.PI;
  return [radius * Math.sin(angle), -radius * Math.cos(angle)];
}

const point = (second, radius) => at(second, radius).map((x) => x.toFixed(2)).join(" ");
const radius = (m) => R * (0.25 + (0.75 * m) / Math.max(user.time.length - 1, 1));
const colour = (m) => user.colours.get(user.group[user.row[m]]) ?? model.grey;

/** What does not move with the hour: circles, hours, and every behaviour as a faint dot. */
function drawFace() {
  const face = $("face"), of = new Map();
  face.replaceChildren(node("circle", { r: R, fill: "none", stroke: "var(--line)" }));
  for (let hour = 0; hour < 24; hour += 3) {
    const [x, y] = at(hour * 3600, R + 14), [x1, y1] = at(hour * 3600, R * 0.2), [x2, y2] = at(hour * 3600, R + 4);
    face.append(node("line", { x1, y1, x2, y2, stroke: "var(--line)" }), node("text", { x, y }, `${hour}:00`));
  }
  for (let m = 0; m < user.time.length; m++) {
    of.set(colour(m), (of.get(colour(m)) ?? "") + `M${point(clock(m), radius(m))}h0`);
  }
  for (const [stroke, d] of of) {
    face.append(node("path", { d, stroke, "stroke-width": 2.6, "stroke-linecap": "round", opacity: 0.35, fill: "none" }));
  }
  face.append(node("path", { id: "hand", fill: model.hand, "fill-opacity": 0.2, stroke: model.hand }), node("line", { id: "needle",
    stroke: model.hand, "stroke-width": 2.5, "stroke-linecap": "round" }), node("svg", { id: "kept", overflow: "visible" }));
  $("groups").replaceChildren(...user.groups.map(({ name, colour }) => {
    const mark = node("i");
    mark.style.background = colour;
    return node("li", {}, mark, name);
  }));
}

function moveFace(second, picks) {
  const s = tables[model.search], most = s.reduce((a, b) => Math.max(a, b)), edge = [];
  for (let other = 0; other < DAY; other += 300) edge.push(point(other, R * Math.exp(s[apart(other, second)] - most)));
  $("hand").setAttribute("d", `M${edge.join("L")}Z`);
  const [x2, y2] = at(second, R + 4);
  for (const [key, value] of Object.entries({ x1: 0, y1: 0, x2, y2 })) $("needle").setAttribute(key, value);
  $("kept").replaceChildren(...picks.map((pick) => {
    const [cx, cy] = at(clock(pick.m), radius(pick.m));
    const title = `${user.rows[user.row[pick.m]]}, ${text(clock(pick.m))}, attention ${share(pick.attention)}`;
    return node("circle", { cx, cy, r: 2 + 9 * Math.sqrt(pick.attention), fill: colour(pick.m), stroke: "var(--text)",
      "stroke-width": 0.7, "data-index": pick.m }, node("title", {}, title));
  }));
}

const share = (x) => `${(100 * x).toFixed(1)}%`;
const ago = (seconds) => seconds < 2 * DAY ? `${Math.round(seconds / 3600)} hours` : `${Math.round(seconds / DAY)} days`;

function when(m) {
  const date = new Date(1000 * user.time[m]);
  const day = date.toLocaleDateString("en", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
  return [node("span", {}, `${day},`), " ", node("span", {}, text(clock(m)))];
}

/** A bar a head, the tallest of all picks as high as may be. */
function bars(heads, most) {
  const width = 40 / heads.length;
  return node("svg", { viewBox: "0 0 40 10", preserveAspectRatio: "none", "aria-hidden": "true" }, ...heads.map((weight, head) => node(
    "rect", { x: head * width, y: 10 - (10 * weight) / most, width: width - 1, height: (10 * weight) / most, fill: "currentColor" })));
}

function showPicks(second, picks) {
  const most = Math.max(...picks.flatMap((pick) => pick.heads));
  $("picks").tBodies[0].replaceChildren(...picks.map((pick) => {
    const { m } = pick, heads = pick.heads.map(share).join(", ");
    const cells = [[user.rows[user.row[m]]], when(m), ...[ago(user.ago[m] + second), pick.score.toFixed(3), pick.content.toFixed(3), pick.time.toFixed(3)].map((cell) => [cell])];
    return node("tr", { "data-index": m, "data-score": pick.score, "data-attention": pick.attention },
      ...cells.map((cell) => node("td", {}, ...cell)), node("td", { title: `heads: ${heads}` }, bars(pick.heads, most), share(pick.attention)));
  }));
}

/** A row a candidate, made once a user; the order moves. */
function drawRanking() {
  const count = user.candidates.length, places = DAY / model.step;
  const least = user.ranking.reduce((a, b) => Math.min(a, b)), most = user.ranking.reduce((a, b) => Math.max(a, b));
  const height = (x) => 20 - (18 * (x - least)) / (most - least || 1);
  user.places = user.candidates.map(() => 0);
  for (let place = 0; place < places; place++) ranked(place).forEach((c, at) => { user.places[c] += at / places; });
  user.buttons = user.candidates.map(({ item, name }, c) => {
    const curve = Array.from({ length: places }, (_, place) => `${(100 * place) / (places - 1)} ${height(user.ranking[place * count + c])}`);
    const svg = node("svg", { viewBox: "0 0 100 22", preserveAspectRatio: "none", "aria-hidden": "true" }, node("path", {
      d: `M${curve.join("L")}`, fill: "none", stroke: "var(--faint)", "vector-effect": "non-scaling-stroke" }),
      node("line", { y1: 0, y2: 22, stroke: model.hand, "vector-effect": "non-scaling-stroke" }));
    const button = node("button", { type: "button", "data-item": item }, node("span", { class: "number" }), node("span", { class: "name", title: name }, name),
      node("span", { class: "moved" }), svg, node("span", { class: "number score" }));
    button.addEventListener("click", () => compare(c));
    return button;
  });
  $("ranking").replaceChildren(...user.buttons.map((button) => node("li", {}, button)));
}

function moveRanking(second, animated) {
  const place = gridOf(second), sorted = ranked(place), list = $("ranking");
  const before = new Map(user.buttons.map((button) => [button, button.offsetTop]));
  const moves = sorted.some((c, at) => list.children[at] !== user.buttons[c].parentNode);
  if (moves) list.append(...sorted.map((c) => user.buttons[c].parentNode));
  sorted.forEach((c, at) => {
    const button = user.buttons[c], up = Math.round(user.places[c] - at), score = user.ranking[place * sorted.length + c];
    button.firstChild.textContent = at + 1;
    button.querySelector(".moved").textContent = up > 0 ? `▲ ${up}` : up < 0 ? `▼ ${-up}` : "";
    button.querySelector(".score").textContent = score.toFixed(2);
    button.setAttribute("aria-pressed", c === candidate);
    const line = button.querySelector("line");
    for (const end of ["x1", "x2"]) line.setAttribute(end, (100 * place) / (DAY / model.step - 1));
    const from = before.get(button) - button.offsetTop;
    if (animated && from && !still.matches) button.animate([{ transform: `translateY(${from}px)` }, { transform: "none" }], 250);
  });
  $("grid").textContent = text(place * model.step);
  return user.candidates[sorted[0]].name;
}

function show({ animated = true } = {}) {
  if (user === undefined) return; // nobody could be shown yet
  const second = 60 * $("hour").value, picks = search(second);
  attend(picks, second);
  $("now").textContent = text(second);
  $("hour").setAttribute("aria-valuetext", text(second));
  moveFace(second, picks);
  showPicks(second, picks);
  const first = moveRanking(second, animated), of = user.time.length.toLocaleString("en");
  $("summary").textContent = `At ${text(second)} the search keeps ${picks.length} of ${of} behaviours for ${user.candidates[candidate].name}; ${first} is ranked first.`;
}

function compare(c) {
  candidate = c;
  $("candidate").value = c;
  show();
}

// Versions of the model, and users.

function adopt(given) {
  model = given;
  tables = model.tables.map((table) => new Float32Array(bytes(table)));
  document.documentElement.style.setProperty("--hand", model.hand);
  $("version").textContent = model.version;
  $("step").textContent = model.step / 60;
}

function unpacked(given) {
  const made = { ...given };
  for (const name of ["ranking", "content", "heads"]) made[name] = new Float32Array(bytes(given[name]));
  for (const name of ["time", "ago"]) made[name] = new Float64Array(bytes(given[name]));
  made.row = new Int32Array(bytes(given.row));
  made.colours = new Map(given.groups.map(({ group, colour }) => [group, colour]));
  return made;
}

async function ask(name, items) {
  const answer = await fetch(`user?${new URLSearchParams({ user: name, items, version: model.version })}`);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

async function choose(given, items = "") {
  const mine = ++asked;
  $("problem").hidden = true;
  try {
    const found = given.row === undefined || items ? await ask(given.user, items) : given;
    if (mine !== asked) return; // another was chosen meanwhile
    if (found.model) adopt(found.model); // the folder has a new version
    user = unpacked(found);
  } catch (error) {
    if (mine !== asked) return;
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    return;
  }
  candidate = 0;
  $("candidate").replaceChildren(...user.candidates.map(({ name }, c) => node("option", { value: c }, name)));
  drawFace();
  drawRanking();
  show({ animated: false });
}

function drag(event) {
  if (!event.buttons) return;
  const box = $("face").getBoundingClientRect();
  const angle = Math.atan2(event.clientX - box.left - box.width / 2, box.top + box.height / 2 - event.clientY);
  $("hour").value = ((angle / (2 * Math.PI) + 1) % 1) * 1440;
  show();
}

adopt(page.model);
$("other").hidden = !page.live;
$("user").append(...page.users.map((each, place) => node("option", { value: place }, String(each.user))));
$("user").addEventListener("change", () => choose(page.users[$("user").value]));
$("candidate").addEventListener("change", () => compare(Number($("candidate").value)));
$("hour").addEventListener("input", () => show());
$("face").addEventListener("pointerdown", (event) => { $("face").setPointerCapture(event.pointerId); drag(event); });
$("face").addEventListener("pointermove", drag);
$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  if (page.live) choose({ user: $("other-user").value || page.users[$("user").value].user }, $("other-items").value);
});
choose(page.users[0]);
