"use strict";
document.documentElement.classList.add("js");

// Sort: a button in every column head; missing values stay last, rows without a claim stay in their own body.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("word") ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      for (const body of table.tBodies) {
        const rows = [...body.rows].map((row, place) => ({ row, place, key: key(row.cells[column]) }));
        rows.sort((a, b) => compare(a.key, b.key, order === "ascending" ? 1 : -1) || a.place - b.place);
        body.append(...rows.map((entry) => entry.row));
      }
    });
  });
}

function key(cell) {
  const text = cell.dataset.sort ?? cell.textContent.trim();
  if (cell.dataset.sort === undefined && (text === "—" || text === "")) return null;
  return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

// Filters and switches: a row leaves the tables and the figures of its board together.
const form = document.querySelector("form.filters");

function passes(row) {
  for (const select of form?.querySelectorAll("select") ?? []) {
    if (select.value && row.dataset[select.dataset.filter] !== select.value) return false;
  }
  for (const input of form?.querySelectorAll("input") ?? []) {
    const value = row.dataset[input.dataset.most];
    if (input.value !== "" && (value === "" || Number(value) > Number(input.value))) return false;
  }
  return true;
}

function show(part, on) {
  if (part instanceof SVGElement) part.style.display = on ? "" : "none";
  else part.hidden = !on;
}

function update() {
  let shown = 0;
  const rows = [...document.querySelectorAll("tr[data-cost]")];
  for (const row of rows) {
    const board = row.closest("section.board");
    const box = board?.querySelector(`.legend input[value="${row.dataset.row}"]`);
    const passed = passes(row);
    shown += passed;
    if (!board) { row.hidden = !passed; continue; }
    box.closest("label").hidden = !passed;
    for (const part of board.querySelectorAll(`[data-row="${row.dataset.row}"]`)) show(part, passed && box.checked);
  }
  for (const board of document.querySelectorAll("section.board")) {
    board.hidden = ![...board.querySelectorAll("tr[data-cost]")].some(passes);
  }
  if (form) form.querySelector("output").textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : "";
}

for (const box of document.querySelectorAll(".legend input")) {
  box.checked = true;
  box.addEventListener("change", update);
}
if (form) {
  form.reset();
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
}

// Two rows side by side: only pairs of the chosen rows stay; a single one is unfolded.
for (const chooser of document.querySelectorAll("form.chooser")) {
  const selects = [...chooser.querySelectorAll("select")];
  const pairs = [...chooser.closest("section").querySelectorAll("details.pair")];
  chooser.reset();
  chooser.addEventListener("change", () => {
    const chosen = selects.map((select) => select.value).filter((value) => value !== "");
    const twice = chosen.length === 2 && chosen[0] === chosen[1];
    const found = pairs.filter(({ dataset }) => !twice && chosen.every((key) => [dataset.a, dataset.b].includes(key)));
    for (const pair of pairs) {
      pair.hidden = !found.includes(pair);
      pair.open = found.length === 1 && found[0] === pair;
    }
    chooser.querySelector("output").textContent = found.length ? "" : twice ? "Twice the same row." : "Not among the pairs of this page.";
  });
  chooser.addEventListener("submit", (event) => event.preventDefault());
}

// A link leads into what is folded, and past what is hidden.
function open() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target?.closest("details");
  if (!folded) return;
  folded.hidden = false;
  folded.open = true;
  folded.scrollIntoView();
}
window.addEventListener("hashchange", open);
open();
