"use strict";
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") === "descending";
  const value = (row) => row.children[place].dataset.value;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    const numbers = a !== "" && b !== "" && isFinite(a) && isFinite(b);
    const order = numbers ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0;
    return up ? order : -order;
  });
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}));
