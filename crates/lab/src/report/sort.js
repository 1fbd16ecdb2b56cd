// Sorts a table by the column whose head is pressed: figures as figures. Without it nothing is missing but this.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent;
      const figure = (row) => parseFloat(text(row).replaceAll(",", ""));
      const compare = (a, b) => {
        const difference = figure(a) - figure(b);
        return Number.isNaN(difference) ? text(a).localeCompare(text(b)) : difference;
      };
      const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
      rows.forEach((row) => row.classList.remove("first"));
      body.append(...rows);
    });
  });
}
