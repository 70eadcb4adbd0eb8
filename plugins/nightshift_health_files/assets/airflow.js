// Links to Airflow's own pages. Within its UI this page is a frame that may not navigate the window around it,
// but being of the same origin it can tell that window's router to.
"use strict";

function goInAirflow(address) {
  const around = window.parent;
  const index = around.history.state?.idx ?? 0;
  around.history.pushState({ idx: index + 1, key: String(Date.now()), usr: null }, "", address);
  around.dispatchEvent(new PopStateEvent("popstate", { state: around.history.state }));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-airflow-page]");
  if (!link || window.parent === window) return;
  event.preventDefault();
  goInAirflow(link.href);
});
