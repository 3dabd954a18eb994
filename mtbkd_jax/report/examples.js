"use strict";

// Sorting and filtering of the tables of examples. Without this script they are whole, in the order of certainty.
for (const box of document.querySelectorAll("[data-examples]")) {
  const table = box.querySelector("table");
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = (row, column) => row.cells[column].textContent;

  // Sorting: a button in each heading.
  const numberIn = (row, column) => {
    const value = Number.parseFloat(text(row, column));
    return Number.isNaN(value) ? Infinity : value;
  };
  const compare = {
    number: (column, sign) => (a, b) => {
      const [x, y] = [numberIn(a, column), numberIn(b, column)];
      // What is not known stays at the end, whichever way the rest is sorted.
      if (x === y) return 0;
      return Math.max(x, y) === Infinity ? x - y : sign * (x - y);
    },
    text: (column, sign) => (a, b) =>
      sign * text(a, column).localeCompare(text(b, column), undefined, { numeric: true }),
  };
  headings.forEach((heading, column) => {
    const kind = heading.dataset.sort;
    if (!kind) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const isAscending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) if (other.dataset.sort) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      body.append(...rows.sort(compare[kind](column, isAscending ? 1 : -1)));
    });
  });

  // Filtering: a field for words anywhere in a row, and a choice for each column that has few values.
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.setAttribute("role", "search");
  controls.setAttribute("aria-label", "Filter the examples");
  const status = document.createElement("p");
  status.className = "note";
  status.setAttribute("role", "status");
  const words = document.createElement("input");
  words.type = "search";
  const choices = new Map();

  const labelled = (name, control) => {
    const label = document.createElement("label");
    label.append(name, control);
    controls.append(label);
  };
  const show = () => {
    const wanted = words.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const isShown =
        (!wanted || row.textContent.toLowerCase().includes(wanted)) &&
        [...choices].every(([column, select]) => !select.value || text(row, column) === select.value);
      row.hidden = !isShown;
      count += isShown;
    }
    status.textContent = `${count} of ${rows.length} rows are shown.`;
  };

  labelled("find", words);
  words.addEventListener("input", show);
  headings.forEach((heading, column) => {
    if (!("filter" in heading.dataset)) return;
    const select = document.createElement("select");
    const values = [...new Set(rows.map((row) => text(row, column)))];
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    select.add(new Option("any", ""));
    for (const value of values) select.add(new Option(value, value));
    choices.set(column, select);
    labelled(heading.textContent, select);
    select.addEventListener("change", show);
  });
  box.prepend(controls, status);
  show();
}
