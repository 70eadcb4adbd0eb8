// Two nights: their losses and causes as bars, from the figures in the table.
"use strict";

const EARLIER_AND_LATER = [["#56B4E9", "#7CC8F2"], ["#0072B2", "#4FA3DB"]];

function barsOf(kind) {
  const rows = [...document.querySelectorAll(`#figure-rows tr[data-chart="${kind}"]`)];
  const labels = rows.map((row) => row.cells[0].textContent.replace("Cause: ", ""));
  const value = (text) => (text === "" ? null : Number(text));
  return [["Earlier", "one"], ["Later", "other"]].map(([name, key], index) => ({
    name, type: "bar", orientation: "h", y: labels, x: rows.map((row) => value(row.dataset[key])),
    marker: { color: shade(EARLIER_AND_LATER[index]), pattern: index ? {} : { shape: "/", solidity: 0.2 } },
    hovertemplate: "%{x:.3f}",
  }));
}

async function drawBars(id, kind, title) {
  const { axis, layout } = looks();
  const bars = {
    ...layout, barmode: "group", height: 320, margin: { l: 8, r: 16, t: 36, b: 32 },
    title: { text: title, font: { size: 13, color: cssColor("text") }, x: 0, xanchor: "left" },
    xaxis: axis, yaxis: { ...axis, autorange: "reversed" }, legend: { orientation: "h", x: 1, xanchor: "right", y: 1.12 },
  };
  await (await plotlyReady).react(id, barsOf(kind), bars, CONFIG);
}

async function drawBoth() {
  await drawBars("losses", "loss", "Losses, nats");
  await drawBars("causes", "cause", "Causes, nats");
  document.body.dataset.drawn = "";
}

drawBoth();
document.addEventListener("themechange", drawBoth);
