"use strict";
// Draws each chart when it comes near the screen, in the colours of the style sheet, again when the theme changes.
const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const hidden = new Set();
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

// "$name" -> what --name is in the present theme
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// Only where colours stand: a genre may be called $ink
function coloured(value, isColour = false) {
  if (isColour && typeof value === "string" && value.startsWith("$")) return colour(value.slice(1));
  if (Array.isArray(value)) return isColour ? value.map((one) => coloured(one, true)) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, coloured(one, key === "color" || key === "colorscale")]),
  );
}

function layoutOf(layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
  const own = coloured({ ...layout, shapes: undefined });
  return {
    margin: { l: 52, r: 12, t: layout.showlegend || layout.shapes ? 34 : 10, b: 48 },
    showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("ink") } },
    dragmode: false,
    ...own,
    shapes: (layout.shapes || []).map((shape) => coloured(shape)),
    xaxis: { ...axis, ...own.xaxis },
    yaxis: { ...axis, ...own.yaxis },
  };
}

// One after the other: plotly loses its place where a chart is drawn while it is being drawn
function draw(chart) {
  return (chart.turn = (chart.turn || Promise.resolve()).then(() => drawNow(chart)));
}

async function drawNow(chart) {
  const { data, layout } = figures[chart.dataset.figure];
  const traces = data.map((trace) => ({ ...coloured(trace), visible: !hidden.has(trace.meta) }));
  await Plotly.react(chart, traces, layoutOf(layout), { responsive: true, displayModeBar: false });
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

// Theme: the system's, until the button is pressed
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

// Numbers by size, words by letters, "–" before all
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
