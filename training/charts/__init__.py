"""The report's pictures: drawn once, as SVG for the page (light or dark) and as PNG for e-mail."""
