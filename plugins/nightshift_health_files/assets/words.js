// What a night is called, marked and coloured. Shapes differ as well as colours.
"use strict";

const OUTCOMES = {
  promoted: { word: "Promoted", mark: "★", symbol: "star", tone: "good" },
  accepted: { word: "Accepted", mark: "●", symbol: "circle", tone: "good" },
  failed: { word: "Failed", mark: "✕", symbol: "x", tone: "bad" },
  skipped: { word: "Skipped", mark: "○", symbol: "circle-open", tone: "quiet" },
  running: { word: "Running", mark: "▶", symbol: "triangle-right", tone: "busy" },
  queued: { word: "Queued", mark: "◔", symbol: "hourglass", tone: "busy" },
  under_way: { word: "Unfinished", mark: "◇", symbol: "diamond-open", tone: "quiet" },
  unrecorded: { word: "Not recorded", mark: "□", symbol: "square-open", tone: "quiet" },
};
const REFUSALS = { 2: "Bad setting", 3: "Data rejected", 4: "Diverged", 5: "Worse than champion" };

function outcomeOf(night) {
  const known = OUTCOMES[night.outcome] ?? OUTCOMES.unrecorded;
  const refusal = night.outcome === "failed" ? REFUSALS[night.exit_code] : undefined;
  return { ...known, word: refusal ?? known.word };
}

// The nights come as one array a field; this gives one object a night.
function asNights(columns) {
  const fields = Object.keys(columns).filter((name) => name !== "causes");
  return columns.run.map((_, index) => ({
    index,
    ...Object.fromEntries(fields.map((name) => [name, columns[name][index]])),
  }));
}

const pad = (number) => String(number).padStart(2, "0");

function dateOf(night) {
  const began = new Date(night.began);
  return `${began.getUTCFullYear()}-${pad(began.getUTCMonth() + 1)}-${pad(began.getUTCDate())}`;
}

function momentOf(night) {
  const began = new Date(night.began);
  return `${dateOf(night)} ${pad(began.getUTCHours())}:${pad(began.getUTCMinutes())}`;
}

const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const spaced = (word) => (word ?? "").replaceAll("_", " ");

// An element with attributes and children; text becomes text nodes, so nothing in it is ever markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function chip(night) {
  const { word, mark, tone } = outcomeOf(night);
  return element("span", { class: `verdict ${tone}` }, element("span", { "aria-hidden": "true" }, mark), ` ${word}`);
}
