"use strict";
// Draws each chart when it comes near the viewport, in the colours of the style sheet, and again when the theme changes.
const { template, figures } = JSON.parse(document.getElementById("figures").textContent);
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
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  drawAgain();
});

for (const button of document.querySelectorAll("[data-backbone]")) {
  button.addEventListener("click", () => {
    const { backbone } = button.dataset;
    if (!hidden.delete(backbone)) hidden.add(backbone);
    button.setAttribute("aria-pressed", String(!hidden.has(backbone)));
    drawAgain();
  });
}

const pairs = [...document.querySelectorAll("[data-show]")];
for (const button of pairs) {
  button.addEventListener("click", () => {
    for (const one of pairs) {
      one.setAttribute("aria-pressed", String(one === button));
      document.getElementById(one.dataset.show).hidden = one !== button;
    }
  });
}

// The table of trials
const table = document.getElementById("trials");
const body = table.tBodies[0];
const rows = [...body.rows];
const filter = document.getElementById("filter");

filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${rows.length} trials`;
});

[...table.tHead.rows[0].cells].forEach((head, column) => {
  head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const one of head.parentNode.cells) one.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((row) => [row.cells[column].textContent.trim(), row]);
    keyed.sort(([one], [other]) => compare(one, other) * (down ? -1 : 1));
    body.append(...keyed.map(([, row]) => row));
  });
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
