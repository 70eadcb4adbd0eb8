// The table of nights: everything the charts show, for the keyboard and for screen readers.
"use strict";

const FIRST_ROWS = 100;

// The night's report; where it has none, that address says so and offers what there is.
const reportOf = (places, night) => `${places.model}/runs/${night.run}/report.html`;

function openLinks(places, night) {
  const when = momentOf(night);
  const links = [];
  if (night.kept) {
    const docs = `${places.model}/runs/${night.run}/data_docs/index.html`;
    links.push(element("a", { href: docs, "aria-label": `Data Docs of ${when}` }, "Data Docs"));
  }
  if (night.run_id) {
    const run = `${places.airflow}/runs/${encodeURIComponent(night.run_id)}`;
    links.push(element("a", { href: run, "data-airflow-page": "", "aria-label": `Airflow's run of ${when}` }, "Run"));
  }
  return links.flatMap((link, index) => (index ? [" · ", link] : [link]));
}

function nightRow(places, night) {
  const box = element("input", { type: "checkbox", value: night.run, "aria-label": `Compare ${momentOf(night)}` });
  const opened = element("a", { href: reportOf(places, night), title: night.run }, momentOf(night));
  const champion = night.champion === null ? null : element("span", { class: "champion" }, `Champion ${night.champion}`);
  const cells = ["fit", "before", "after", "served", "limit", "roc_auc"].map((name) => element("td", { class: "n" }, figure(night[name])));
  return element(
    "tr",
    {},
    element("td", {}, box),
    element("th", { scope: "row" }, opened),
    element("td", {}, chip(night), champion && " ", champion),
    ...cells,
    element("td", { class: "cause", title: night.message }, spaced(night.cause)),
    element("td", { class: "open" }, ...openLinks(places, night)),
  );
}

function fillTable(places, nights) {
  const newest = nights.slice().reverse();
  const rows = document.getElementById("rows");
  const more = document.getElementById("more");
  rows.replaceChildren(...newest.slice(0, FIRST_ROWS).map((night) => nightRow(places, night)));
  more.hidden = newest.length <= FIRST_ROWS;
  more.textContent = `Show all ${newest.length.toLocaleString("en")} nights`;
  more.addEventListener("click", () => {
    rows.append(...newest.slice(FIRST_ROWS).map((night) => nightRow(places, night)));
    more.hidden = true;
    rows.rows[FIRST_ROWS].querySelector("a").focus();
  });
}

function pickTwo(places) {
  const rows = document.getElementById("rows");
  const button = document.getElementById("compare");
  const picked = () => [...rows.querySelectorAll("input:checked")].map((box) => box.value);
  rows.addEventListener("change", () => {
    const count = picked().length;
    button.disabled = count !== 2;
    document.getElementById("picked").textContent =
      count === 2 ? "Two nights selected" : `Select two nights to compare${count ? ` (${count} selected)` : ""}`;
  });
  button.addEventListener("click", () => {
    const [one, other] = picked();
    window.location.href = `${places.model}/compare?${new URLSearchParams({ one, other })}`;
  });
}
