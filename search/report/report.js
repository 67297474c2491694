"use strict";
// Draws each chart when it comes near the viewport, in the colours of the style sheet, and again when the theme changes.
const { template, figures, csv } = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const hidden = new Set();
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

// "var(--name)" -> its value in the current theme
function resolve(colour) {
  probe.style.color = colour;
  return getComputedStyle(probe).color;
}

// Resolves colours only in properties that hold colours: a genre may be called "var(--ink)"
function themed(value, isColour = false) {
  if (isColour && typeof value === "string" && value.startsWith("var(")) return resolve(value);
  if (Array.isArray(value)) return value.map((one) => themed(one, isColour));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, themed(one, /color(scale)?$/.test(key))]),
  );
}

// One after the other: Plotly breaks if a chart is drawn while it is still being drawn
function draw(chart) {
  return (chart.turn = (chart.turn || Promise.resolve()).then(() => drawNow(chart)));
}

async function drawNow(chart) {
  const { data, layout } = figures[chart.dataset.figure];
  const traces = data.map((trace) => ({ ...themed(trace), visible: !hidden.has(trace.meta) }));
  const settings = { responsive: true, displayModeBar: false };
  await Plotly.react(chart, traces, themed({ ...layout, template }), settings);
  if (!chart.dataset.drawn) chart.on("plotly_click", ({ points: [point] }) => find([point.customdata].flat()[0]));
  chart.dataset.drawn = "yes";
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  },
  { rootMargin: "300px" },
);
charts.forEach((chart) => seen.observe(chart));

function drawAgain() {
  charts.filter((chart) => chart.dataset.drawn).forEach(draw);
}

// The system's theme, until the button is pressed
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", drawAgain);
const root = document.documentElement;
document.getElementById("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  drawAgain();
});

const keys = [...document.querySelectorAll("[data-backbone]")];
function toggle(button) {
  const { backbone } = button.dataset;
  if (!hidden.delete(backbone)) hidden.add(backbone);
  button.setAttribute("aria-pressed", String(!hidden.has(backbone)));
  drawAgain();
}
for (const button of keys) button.addEventListener("click", () => toggle(button));

const pairs = [...document.querySelectorAll("[data-show]")];
function show(button) {
  for (const one of pairs) {
    one.setAttribute("aria-pressed", String(one === button));
    document.getElementById(one.dataset.show).hidden = one !== button;
  }
}
for (const button of pairs) button.addEventListener("click", () => show(button));

// Marks the section in view in the list of contents
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const headings = [...document.querySelectorAll("h1[id], h2[id]")];
function markSection() {
  const passed = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight / 3);
  const now = passed.at(-1) || headings[0];
  for (const [id, link] of links) {
    if (id === now.id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("scroll", markSection, { passive: true });
markSection();

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const label = button.textContent;
    button.textContent = (await copy(document.getElementById(button.dataset.copy).textContent)) ? "Copied" : "Not copied: select the text below";
    setTimeout(() => (button.textContent = label), 2000);
  });
}

// For local files, browsers have no clipboard API or only this older one
async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not permitted
    }
  }
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// The table of trials
const table = document.getElementById("trials");
const body = table.tBodies[0];
const rows = [...body.rows];
const filter = document.getElementById("filter");

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${rows.length} trials`;
  shade();
}
filter.addEventListener("input", applyFilter);

const heads = [...table.tHead.rows[0].cells];
function sort(column, down) {
  for (const one of heads) one.setAttribute("aria-sort", "none");
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = rows.map((row) => [row.cells[column].dataset.sort ?? row.cells[column].textContent.trim(), row]);
  keyed.sort(([one], [other]) => compare(one, other) * (down ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}
heads.forEach((head, column) => {
  head.firstChild.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
});

// A shadow shows that the table continues
const scroller = table.closest(".tall");
function shade() {
  const { scrollLeft, scrollTop, clientWidth, clientHeight, scrollWidth, scrollHeight } = scroller;
  const { classList, style } = scroller.parentNode;
  style.setProperty("--bar-right", `${scroller.offsetWidth - 2 - clientWidth}px`);
  style.setProperty("--bar-below", `${scroller.offsetHeight - 2 - clientHeight}px`);
  classList.toggle("more-right", scrollLeft + clientWidth < scrollWidth - 1);
  classList.toggle("more-below", scrollTop + clientHeight < scrollHeight - 1);
}
scroller.addEventListener("scroll", shade, { passive: true });
new ResizeObserver(shade).observe(scroller);

// The rows that the table shows, in its order, with all columns
function shownAsCsv() {
  const shown = [...body.rows].filter((row) => !row.hidden);
  return csv.header + shown.map((row) => csv.lines[row.id.slice("trial-".length)]).join("");
}
const download = document.getElementById("csv");
download.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([shownAsCsv()], { type: "text/csv" }));
  link.download = download.dataset.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

// Numbers numerically, words alphabetically, "–" first
function compare(one, other) {
  const [a, b] = [parseFloat(one), parseFloat(other)];
  if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other);
  return (Number.isNaN(a) ? -Infinity : a) - (Number.isNaN(b) ? -Infinity : b) || 0;
}

function find(trial) {
  const row = document.getElementById(`trial-${trial}`);
  if (!row) return;
  row.hidden = false;
  document.querySelectorAll("tr.found").forEach((one) => one.classList.remove("found"));
  row.classList.add("found");
  row.scrollIntoView({ block: "center" });
}

// The reader's settings and scroll position survive a reload
const memory = `genre-search ${location.pathname}`;
const opened = [...document.querySelectorAll("details")];
addEventListener("pagehide", () => {
  const sorted = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
  const state = {
    theme: root.dataset.theme,
    hidden: [...hidden],
    pair: pairs.findIndex((button) => button.getAttribute("aria-pressed") === "true"),
    filter: filter.value,
    focused: document.activeElement === filter,
    sorted,
    down: sorted >= 0 && heads[sorted].getAttribute("aria-sort") === "descending",
    open: opened.map((one) => one.open),
    table: [scroller.scrollLeft, scroller.scrollTop],
    page: [scrollX, scrollY],
  };
  sessionStorage.setItem(memory, JSON.stringify(state));
});

function restore(state) {
  if (state.theme) root.dataset.theme = state.theme;
  for (const button of keys) if (state.hidden.includes(button.dataset.backbone)) toggle(button);
  if (pairs[state.pair]) show(pairs[state.pair]);
  filter.value = state.filter;
  if (state.filter) applyFilter();
  if (state.sorted >= 0) sort(state.sorted, state.down);
  opened.forEach((one, index) => (one.open = Boolean(state.open[index])));
  if (state.focused) filter.focus({ preventScroll: true });
  scroller.scrollTo(...state.table);
  scrollTo({ left: state.page[0], top: state.page[1], behavior: "instant" });
}

const remembered = sessionStorage.getItem(memory);
if (remembered && performance.getEntriesByType("navigation")[0].type === "reload") {
  history.scrollRestoration = "manual";
  restore(JSON.parse(remembered));
}

// Reloads a page that is being rewritten, less and less often if no new version appears
const { reload, written } = document.body.dataset;
const STALE_PERIODS = 4;
function age() {
  return Math.max(0, (Date.now() - Date.parse(written)) / 1000);
}
const shownAge = document.getElementById("age"); // missing if the search ended while the page was written
function showAge() {
  const seconds = Math.round(age());
  const ago = seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
  const stale = seconds > STALE_PERIODS * reload;
  shownAge.textContent = stale
    ? `Last written ${ago}: genre-search report --watch has stopped or is delayed.`
    : `Written ${ago}; the page reloads itself.`;
}
function isInUse() {
  const plays = [...document.querySelectorAll("audio")].some((audio) => !audio.paused);
  return document.hidden || plays || String(getSelection()) !== "";
}
function reloadSoon() {
  if (isInUse()) setTimeout(reloadSoon, 1000);
  else location.reload();
}
if (reload) {
  if (shownAge) {
    showAge();
    setInterval(showAge, 1000);
  }
  setTimeout(reloadSoon, 1000 * Math.max(Number(reload), age() / 2));
}
