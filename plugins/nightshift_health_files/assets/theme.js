// Airflow's own choice of colours, which its UI keeps in localStorage; without one, the system's.
"use strict";

const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");

function theme() {
  let chosen = null;
  try {
    chosen = window.localStorage.getItem("theme");
  } catch {
    // Storage may be forbidden; the system's choice is as good.
  }
  if (chosen === "light" || chosen === "dark") return chosen;
  return systemIsDark.matches ? "dark" : "light";
}

function applyTheme() {
  document.documentElement.dataset.theme = theme();
  document.dispatchEvent(new Event("themechange"));
}

applyTheme();
systemIsDark.addEventListener("change", applyTheme);
// The UI around this page writes its choice in another window, which is what this event tells.
window.addEventListener("storage", (event) => event.key === "theme" && applyTheme());
