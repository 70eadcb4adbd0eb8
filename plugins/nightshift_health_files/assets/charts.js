// The charts' looks and the timeline: verdicts, losses and causes over one axis of nights.
"use strict";

// Okabe and Ito's colours, which people with any colour vision tell apart, a little lighter on dark ground.
const CAUSES = {
  moving_weights: ["#CC79A7", "#E39CC3"],
  stochastic_layers: ["#E69F00", "#F0B840"],
  small_batches: ["#009E73", "#3CC79D"],
  batch_norm: ["#D55E00", "#F08A4B"],
  sampling: ["#56B4E9", "#7CC8F2"],
  generalization: ["#0072B2", "#4FA3DB"],
};
const LINES = {
  fit: { word: "Fit", colors: ["#0072B2", "#6DB7EA"], dash: "solid" },
  before: { word: "Evaluate, before recalibration", colors: ["#D55E00", "#F08A4B"], dash: "dot" },
  after: { word: "Evaluate, after recalibration", colors: ["#007F5C", "#3CC79D"], dash: "solid" },
  limit: { word: "Limit", colors: ["#6B7280", "#9CA3AF"], dash: "dash" },
};
// Plotly's own buttons would lie over the newest nights.
const CONFIG = { responsive: true, displayModeBar: false };

const plotlyReady = new Promise((resolve) => {
  const script = document.getElementById("plotly");
  if (window.Plotly) resolve(window.Plotly);
  else script.addEventListener("load", () => resolve(window.Plotly));
});

const isDark = () => document.documentElement.dataset.theme === "dark";
const shade = (colors) => colors[isDark() ? 1 : 0];
const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// What all charts have in common.
function looks() {
  const axis = { gridcolor: cssColor("grid"), zerolinecolor: cssColor("line"), linecolor: cssColor("line"), automargin: true };
  return {
    axis,
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: cssColor("muted") },
      hoverlabel: { bgcolor: cssColor("panel"), bordercolor: cssColor("line"), font: { color: cssColor("text") }, align: "left" },
    },
  };
}

// Plotly reads some tags in its texts as markup.
const asText = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const wrapped = (text) => (text.match(/.{1,70}(\s|$)|.{1,70}/g) ?? []).map((line) => asText(line.trim())).join("<br>");

function toldOf(night) {
  const lines = [`<b>${asText(momentOf(night))}</b>  ${asText(outcomeOf(night).word)}`, asText(night.run)];
  if (night.champion !== null) lines.push(`Champion ${night.champion}`);
  if (night.cause) lines.push(`Cause: ${asText(spaced(night.cause))}`);
  if (night.message) lines.push(wrapped(night.message));
  return lines.join("<br>");
}

// What hovering tells: the night, then the figure under the pointer. As `text` it would be drawn on every bar.
const hover = (told, word, format) => ({ hovertext: told, hovertemplate: `%{hovertext}<br>${word}: %{y:${format}}<extra></extra>` });

// The nights of a range and one more on each side, to which the lines lead.
function within([from, to], columns, nights) {
  const part = (values) => values.slice(Math.max(0, Math.floor(from)), Math.ceil(to) + 1);
  const parts = (named) => Object.fromEntries(Object.entries(named).map(([name, values]) => [name, part(values)]));
  const { causes, ...others } = columns;
  return { columns: { ...parts(others), causes: parts(causes) }, nights: part(nights) };
}

function lossTraces(columns, x, told) {
  return Object.entries(LINES).map(([name, { word, colors, dash }]) => ({
    name: word, x, y: columns[name], yaxis: "y", type: "scatter", legendgroup: name, customdata: x,
    mode: name === "limit" || x.length > 300 ? "lines" : "lines+markers",
    line: { color: shade(colors), dash, width: name === "limit" ? 1.5 : 2, shape: name === "limit" ? "hvh" : "linear" },
    marker: { size: 5 },
    ...hover(told, word, ".3f"),
  }));
}

function servedTrace(columns, nights, x, told, size) {
  return {
    name: "Served, marked by verdict", x, y: columns.served, yaxis: "y", type: "scatter", mode: "markers", customdata: x,
    marker: verdictMarkers(nights, size), ...hover(told, "Served", ".3f"),
  };
}

// Smaller the more nights are seen, so that they stay apart.
const markerSize = ([from, to]) => Math.min(10, Math.max(4, 900 / (to - from)));

function verdictMarkers(nights, size) {
  const found = nights.map(outcomeOf);
  return {
    opacity: 1,
    size: found.map((one) => sizeOf(one, size)),
    symbol: found.map((one) => one.symbol),
    color: found.map((one) => cssColor(one.tone)),
    line: { width: size > 6 ? 1 : 0, color: cssColor("panel") },
  };
}

// A failed night is seen among however many others.
function sizeOf({ symbol, tone }, size) {
  if (tone === "bad") return Math.max(size, 8);
  return symbol === "star" ? size * 1.4 : size;
}

// Every night has its mark here, also those that never came to a loss.
function verdictTrace(nights, x, told, size) {
  return {
    name: "Verdict", x, y: x.map(() => 0), yaxis: "y3", type: "scatter", mode: "markers", showlegend: false, customdata: x,
    marker: verdictMarkers(nights, size), hovertext: told, hovertemplate: "%{hovertext}<extra></extra>",
  };
}

const STRIPES = () => ({ shape: "/", solidity: 0.25, size: 6, fillmode: "overlay", fgcolor: cssColor("panel"), fgopacity: 1 });

function causeTraces(columns, x, told) {
  return Object.entries(CAUSES).map(([name, colors]) => ({
    name: name === "batch_norm" ? "batch norm (side branch)" : spaced(name), x, y: columns.causes[name], yaxis: "y2", type: "bar", customdata: x, legend: "legend2",
    marker: { color: shade(colors), pattern: name === "batch_norm" ? STRIPES() : {} },
    ...hover(told, spaced(name), "+.3f"),
  }));
}

function timelineLayout(nights, range, logarithmic) {
  const { axis, layout } = looks();
  const legend = { orientation: "h", x: 0, xanchor: "left", yanchor: "bottom", font: { color: cssColor("text") } };
  return {
    ...layout,
    height: 620,
    margin: { l: 56, r: 36, t: 8, b: 40 },
    hovermode: "closest",
    barmode: "relative",
    bargap: 0.15,
    dragmode: "zoom",
    xaxis: { ...axis, range, anchor: "y2", showgrid: false, zeroline: false, ...ticksFor(nights, range) },
    yaxis: { ...axis, domain: [0.41, 0.875], title: { text: "Loss" }, type: logarithmic ? "log" : "linear", zeroline: false, fixedrange: true },
    yaxis2: { ...axis, domain: [0, 0.295], title: { text: "Causes" }, fixedrange: true },
    yaxis3: { ...axis, domain: [0.955, 1], fixedrange: true, range: [-1, 1], showgrid: false, zeroline: false, tickvals: [0], ticktext: ["Verdict"] },
    legend: { ...legend, y: 0.88 },
    legend2: { ...legend, y: 0.3 },
  };
}

// About ten dates, whichever part of the nights is seen.
function ticksFor(nights, [from, to]) {
  const first = Math.max(0, Math.ceil(from)), last = Math.min(nights.length - 1, Math.floor(to));
  const step = Math.max(1, Math.ceil((last - first + 1) / 10));
  const tickvals = [];
  for (let index = last; index >= first; index -= step) tickvals.push(index);
  return { tickmode: "array", tickvals, ticktext: tickvals.map((index) => dateOf(nights[index])) };
}

// The heights that the visible nights need: one night of long ago must not flatten all others.
function heightFor(columns, [from, to], logarithmic) {
  const names = ["fit", "before", "after", "served", "limit"];
  const seen = names.flatMap((name) => columns[name].slice(Math.max(0, Math.ceil(from)), Math.floor(to) + 1));
  const values = seen.filter((value) => value !== null && (!logarithmic || value > 0));
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return logarithmic ? [Math.log10(low) - 0.1, Math.log10(high) + 0.1] : [Math.min(0, low), high * 1.08];
}
