// A model's page: reads its nights, then draws the summary, the table and the timeline.
"use strict";

const health = document.getElementById("health");
const status_ = document.getElementById("status");
const places = { ...health.dataset };
const DEFAULT_NIGHTS = 90;

function card(term, ...value) {
  return element("div", { class: "card" }, element("dt", {}, term), element("dd", {}, ...value));
}

function summarise(nights) {
  const last = nights.at(-1);
  const measured = nights.findLast((night) => night.served !== null);
  const champion = nights.findLast((night) => night.champion !== null);
  const small = (text) => element("span", { class: "hint" }, text);
  const cards = [card("Last night", chip(last), small(momentOf(last)))];
  if (measured) {
    cards.push(card("Served loss", figure(measured.served), small(`fit ${figure(measured.fit)} · limit ${figure(measured.limit)}`)));
    cards.push(card("Evaluate", `${figure(measured.before)} → ${figure(measured.after)}`, small("before → after recalibration")));
  }
  cards.push(card("Champion", champion ? `★ ${champion.champion}` : "none yet", small(champion ? `since ${dateOf(champion)}` : "no night was promoted")));
  document.getElementById("summary").replaceChildren(...cards);
}

// The chart and what moves in it: the nights seen, the scale, the night chosen by the keyboard.
class Timeline {
  constructor(columns, nights) {
    this.columns = columns;
    this.nights = nights;
    this.chart = document.getElementById("chart");
    this.chosen = nights.length;
    this.range = this.lastNights(nights.length > DEFAULT_NIGHTS ? DEFAULT_NIGHTS : 0);
  }

  get logarithmic() {
    return document.getElementById("log").checked;
  }

  lastNights(count) {
    const all = this.nights.length;
    return [count ? Math.max(-0.5, all - count - 0.5) : -0.5, all - 0.5];
  }

  // Only the nights in sight: each mark is an element, and ten thousand of them take a browser a second.
  async draw() {
    const { columns, nights } = within(this.range, this.columns, this.nights);
    const x = nights.map((night) => night.index);
    const size = markerSize(this.range);
    const told = nights.map(toldOf);
    const traces = [
      ...lossTraces(columns, x, told),
      servedTrace(columns, nights, x, told, size),
      ...causeTraces(columns, x, told),
      verdictTrace(nights, x, told, size),
    ];
    await (await plotlyReady).react(this.chart, traces, this.layout(), CONFIG);
    this.markRange();
  }

  layout() {
    const layout = timelineLayout(this.nights, this.range, this.logarithmic);
    layout.yaxis.range = heightFor(this.columns, this.range, this.logarithmic);
    if (this.nights[this.chosen]) layout.shapes = [this.cursor()];
    return layout;
  }

  cursor() {
    const line = { color: cssColor("accent"), width: 1.5, dash: "dot" };
    return { type: "line", xref: "x", yref: "paper", x0: this.chosen, x1: this.chosen, y0: 0, y1: 1, line };
  }

  async move(range) {
    this.range = range;
    await this.draw();
  }

  markRange() {
    for (const button of document.querySelectorAll("#range button")) {
      const [from, to] = this.lastNights(Number(button.dataset.last));
      button.hidden = Number(button.dataset.last) >= this.nights.length;
      button.setAttribute("aria-pressed", String(from === this.range[0] && to === this.range[1]));
    }
  }

  choose(index) {
    this.chosen = Math.min(this.nights.length - 1, Math.max(0, index));
    const night = this.nights[this.chosen];
    const told = [momentOf(night), outcomeOf(night).word, `fit ${figure(night.fit)}`, `served ${figure(night.served)}`, `limit ${figure(night.limit)}`];
    if (night.cause) told.push(`cause ${spaced(night.cause)}`);
    document.getElementById("chosen").textContent = told.join(" · ");
    const range = this.around(this.chosen);
    if (range === this.range) window.Plotly.relayout(this.chart, { shapes: [this.cursor()] });
    else this.move(range);
  }

  // The same number of nights, moved just enough to show this one.
  around(index) {
    const [from, to] = this.range;
    if (index < from) return [index - 0.5, index - 0.5 + (to - from)];
    return index > to ? [index + 0.5 - (to - from), index + 0.5] : this.range;
  }

  open(index) {
    if (this.nights[index]) window.location.href = reportOf(places, this.nights[index]);
  }

  listen() {
    this.chart.on("plotly_click", ({ points }) => this.open(points[0].customdata));
    this.chart.on("plotly_relayout", (change) => this.follow(change));
    this.chart.addEventListener("keydown", (event) => this.press(event));
    document.getElementById("log").addEventListener("change", () => this.draw());
    document.getElementById("range").addEventListener("click", ({ target }) => {
      if (target.dataset.last) this.move(this.lastNights(Number(target.dataset.last)));
    });
    document.addEventListener("themechange", () => this.draw());
  }

  // After zooming by hand: the axis of losses and the dates follow.
  follow(change) {
    if (change["xaxis.autorange"]) this.move(this.lastNights(0));
    else if ("xaxis.range[0]" in change) this.move([change["xaxis.range[0]"], change["xaxis.range[1]"]]);
  }

  press(event) {
    const targets = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: this.nights.length - 1 };
    if (event.target !== this.chart) return;
    if (event.key === "Enter") this.open(this.chosen);
    else if (event.key in targets) this.choose(targets[event.key]);
    else return;
    event.preventDefault();
  }
}

async function show() {
  const answer = await fetch(places.nights, { headers: { Accept: "application/json" } });
  const columns = await answer.json();
  if (!answer.ok) throw new Error(columns.detail);
  status_.hidden = true;
  const nights = asNights(columns);
  document.getElementById(nights.length ? "health" : "empty").hidden = false;
  if (!nights.length) return;
  summarise(nights);
  fillTable(places, nights);
  pickTwo(places);
  const timeline = new Timeline(columns, nights);
  await timeline.draw();
  timeline.listen();
  health.dataset.drawn = "";
}

show().catch((error) => {
  status_.hidden = false;
  status_.textContent = error.message || "The nights cannot be read at the moment.";
});
