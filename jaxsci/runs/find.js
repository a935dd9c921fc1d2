"use strict";
// A search field above each long table: rows that do not have the text are hidden, and so are the sections that they lead to.
for (const table of document.querySelectorAll("table.found")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length <= 10) continue;
  const field = Object.assign(document.createElement("input"), { type: "search", placeholder: "name, result or reason", ariaLabel: "filter" });
  const count = Object.assign(document.createElement("span"), { className: "quiet" });
  const bar = Object.assign(document.createElement("div"), { className: "bar" });
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    let kept = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      kept += !row.hidden;
      const target = table.classList.contains("overview") && row.querySelector("a[href^='#']");
      const section = target && document.getElementById(decodeURIComponent(target.hash.slice(1)));
      if (section) section.hidden = row.hidden;
    }
    count.textContent = `${kept} of ${rows.length}`;
  });
  bar.append(field, count);
  table.parentElement.before(bar);
}
