// The table of all members: sorted by a click on a heading, filtered by name, result or why it failed, fifty rows at a time.
const { head, rows, kinds, noun, why } = JSON.parse(document.getElementById("rows").textContent);
const place = document.getElementById("rows-of-all");
const state = { column: null, up: true, page: 0, text: "", ending: "" };
const size = 50;

function element(name, text, attributes = {}) {
  const node = Object.assign(document.createElement(name), attributes);
  if (text !== null && text !== undefined) node.textContent = text;
  return node;
}

function compare(a, b) {
  const [x, y] = [a[state.column + 1], b[state.column + 1]];
  const [m, n] = [typeof x === "number", typeof y === "number"];
  if (m !== n) return m ? -1 : 1; // what has no value comes last, whichever way
  const order = m ? x - y : String(x ?? "").localeCompare(String(y ?? ""), undefined, { numeric: true });
  return state.up ? order : -order;
}

function reason(row) {
  return Object.hasOwn(why, row[1]) ? why[row[1]] : "";
}

function cell(row, k) {
  const value = row[k + 1];
  if (k === 0) {
    const td = element("td", null, { className: "name" });
    td.append(row[0] ? element("a", value, { href: `members/${row[0]}.html` }) : value);
    return td;
  }
  if (k > 1) return element("td", value, { className: numeric[k] ? "number" : "" });
  const td = element("td");
  td.append(element("span", value, { className: `badge ${kinds[value] ?? "bad"}` }));
  if (reason(row)) td.append(element("p", reason(row), { className: "why" }));
  return td;
}

function draw() {
  const wanted = state.text.toLowerCase();
  const ended = state.ending ? rows.filter((row) => row[2] === state.ending) : rows;
  const kept = ended.filter((row) => `${row[1]} ${row[2]} ${reason(row)}`.toLowerCase().includes(wanted));
  if (state.column !== null) kept.sort(compare);
  const pages = Math.max(Math.ceil(kept.length / size), 1);
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  headings.forEach((button, k) => {
    const mark = k === state.column ? (state.up ? " ▲" : " ▼") : "";
    button.textContent = head[k] + mark;
    button.parentElement.setAttribute("aria-sort", k !== state.column ? "none" : state.up ? "ascending" : "descending");
  });
  body.replaceChildren(...kept.slice(state.page * size, (state.page + 1) * size).map((row) => {
    const tr = element("tr");
    tr.append(...head.map((_, k) => cell(row, k)));
    return tr;
  }));
  count.textContent = `${kept.length} of ${rows.length} ${noun}s, page ${state.page + 1} of ${pages}`;
  back.disabled = state.page === 0;
  on.disabled = state.page === pages - 1;
}

function change(step) {
  step();
  draw();
}

const field = element("input", null, { type: "search", placeholder: "name, result or reason", ariaLabel: "filter" });
field.addEventListener("input", () => change(() => Object.assign(state, { text: field.value, page: 0 })));
const endings = element("select", null, { ariaLabel: "result" });
endings.append(element("option", "every result", { value: "" }));
for (const ending of Object.keys(kinds)) endings.append(element("option", ending, { value: ending }));
endings.addEventListener("change", () => change(() => Object.assign(state, { ending: endings.value, page: 0 })));
const back = element("button", "‹ previous", { type: "button" });
back.addEventListener("click", () => change(() => state.page--));
const on = element("button", "next ›", { type: "button" });
on.addEventListener("click", () => change(() => state.page++));
const count = element("span", "", { className: "quiet" });
const bar = element("div", null, { className: "bar" });
bar.append(field, endings, back, on, count);

const numeric = head.map((_, k) => k > 1 && rows.every((row) => typeof row[k + 1] !== "string" || /^-?(inf|nan)$/.test(row[k + 1])));
const headings = head.map((_, k) => {
  const button = element("button", "", { type: "button" });
  button.addEventListener("click", () => change(() => {
    Object.assign(state, { up: k === state.column ? !state.up : true, column: k, page: 0 });
  }));
  return button;
});
const top_ = element("tr");
top_.append(...headings.map((button, k) => {
  const th = element("th", null, { scope: "col", className: numeric[k] ? "number" : "" });
  th.append(button);
  return th;
}));
const thead = element("thead");
thead.append(top_);
const body = element("tbody");
const grid = element("table", null, { className: "overview" });
grid.append(thead, body);
const scroll = element("div", null, { className: "scroll" });
scroll.append(grid);
place.replaceChildren(bar, scroll);
draw();
