"use strict";

const NUMBER = /^[<≤+\-−]?\s*[+\-−]?\d[\d,]*(\.\d+)?/;

function cellText(row, column) {
  return row.cells[column].textContent.trim();
}

function isEmpty(text) {
  return text === "" || text === "-";
}

function numberOf(text) {
  return parseFloat(text.replace(/[,<≤\s]/g, "").replace("−", "-"));
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const filled = rows.map((row) => cellText(row, column)).filter((text) => !isEmpty(text));
  const isNumeric = filled.every((text) => NUMBER.test(text));
  const order = new Intl.Collator("en", { numeric: true });
  rows.sort((one, other) => {
    const [first, second] = [cellText(one, column), cellText(other, column)];
    if (isEmpty(first) || isEmpty(second)) {
      return isEmpty(first) - isEmpty(second); // at the end, in both directions
    }
    return direction * (isNumeric ? numberOf(first) - numberOf(second) : order.compare(first, second));
  });
  body.append(...rows);
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const isAscending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) {
      other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", isAscending ? "descending" : "ascending");
    sortBy(head.closest("table"), head.cellIndex, isAscending ? -1 : 1);
  });
}

const closed = [];
window.addEventListener("beforeprint", () => {
  closed.push(...document.querySelectorAll("details:not([open])"));
  closed.forEach((one) => (one.open = true));
});
window.addEventListener("afterprint", () => {
  closed.splice(0).forEach((one) => (one.open = false));
});
