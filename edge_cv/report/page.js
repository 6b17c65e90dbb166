// Sorts a table by a column. The page's security policy allows this script alone, by its hash.
"use strict";

const scales = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, k: 1e3, M: 1e6, G: 1e9 };
const next = { none: "ascending", ascending: "descending", descending: "none" };

function firstLine(cell) {
  const parts = [...cell.childNodes].filter(part => !part.classList?.contains("under") && !part.classList?.contains("hidden"));
  return parts.map(part => part.textContent).join("").trim();
}

const isMissing = text => text === "" || text === "–";

// The number at the beginning of a text, in its base unit; NaN if there is none.
function numberIn(text) {
  const found = text.match(/^[<≤]?\s*(-?[\d,]*\.?\d+)\s*([A-Za-z]*)/);
  return found ? Number(found[1].replaceAll(",", "")) * (scales[found[2]] ?? 1) : NaN;
}

// Figures are sorted as numbers if every cell of the column has one; cells without a figure come last.
function sorted(rows, place, order) {
  const texts = rows.map(row => firstLine(row.cells[place]));
  const numbers = texts.map(numberIn);
  const numeric = texts.every((text, n) => isMissing(text) || !Number.isNaN(numbers[n]));
  const sign = order === "descending" ? -1 : 1;
  const compare = (a, b) => numeric ? numbers[a] - numbers[b] : texts[a].localeCompare(texts[b], "en", { numeric: true });
  const both = (a, b) => isMissing(texts[a]) || isMissing(texts[b]);
  const places = [...rows.keys()].sort((a, b) =>
    both(a, b) ? isMissing(texts[a]) - isMissing(texts[b]) : sign * compare(a, b));
  return places.map(n => rows[n]);
}

for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows], headers = [...table.tHead.rows[0].cells];
  if (rows.length < 2) continue;
  headers.forEach((header, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort: ascending, descending, original order";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = next[header.getAttribute("aria-sort")];
      for (const other of headers) other.setAttribute("aria-sort", other === header ? order : "none");
      table.tBodies[0].append(...(order === "none" ? rows : sorted(rows, place, order)));
    });
  });
}
