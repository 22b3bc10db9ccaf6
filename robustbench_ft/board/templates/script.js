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

// Switches: a row leaves the tables and the figures of its board together.
for (const board of document.querySelectorAll("section.board")) {
  for (const box of board.querySelectorAll(".legend input")) {
    box.checked = true;
    box.addEventListener("change", () => {
      for (const part of board.querySelectorAll(`[data-row="${box.value}"]`)) {
        if (part instanceof SVGElement) part.style.display = box.checked ? "" : "none";
        else part.hidden = !box.checked;
      }
    });
  }
}
