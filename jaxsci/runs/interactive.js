"use strict";
// A menu of members, and the panels of the one that is chosen: drawn by plotly.js, in the colours of the page.
const { noun, members } = JSON.parse(document.getElementById("about").textContent);
const section = document.getElementById("member");
const dark = matchMedia("(prefers-color-scheme: dark)");
// a page that lies on a disk offers to send nothing anywhere
const nowhere = { showSendToCloud: false, plotlyServerURL: "", displaylogo: false };
const config = { ...nowhere, responsive: true, showTips: false, doubleClick: "reset", modeBarButtonsToRemove: ["select2d", "lasso2d"] };
let drawn = []; // of each panel: what it is, and where it stands
let moving = false; // while panels follow another

function element(name, text, attributes = {}) {
  const node = Object.assign(document.createElement(name), attributes);
  if (text !== null) node.textContent = text;
  return node;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// names of colours become those of the page; data, which are arrays or packed, have none
function coloured(value) {
  if (typeof value === "string") return value.replace(/^var\((--[\w-]+)\)$/, (_, name) => colour(name));
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
}

function layout(panel, width) {
  const given = panel.figure.layout;
  const axis = { gridcolor: colour("--rule"), zerolinecolor: colour("--faint"), linecolor: colour("--faint"), exponentformat: "power", minexponent: 6 };
  const image = "shape" in panel;
  const inner = Math.max(width - 130, 100); // what axis and bar of colours leave
  const names = panel.figure.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name ?? "");
  const legend = names.length > 1 ? 24 * Math.ceil(names.reduce((sum, name) => sum + 7 * name.length + 55, 0) / inner) : 0;
  const height = panel.shape ? Math.min(inner * panel.shape, 1.3 * width) + 76 : Math.min(Math.max(0.5 * width, 260), 360) + legend;
  return {
    ...given,
    height,
    margin: { l: 72, r: image ? 8 : 16, t: 10, b: 46 },
    xaxis: { ...axis, zeroline: false, ...given.xaxis, showgrid: !image },
    yaxis: { ...axis, automargin: "left", ...given.yaxis, showgrid: !image, zeroline: !image },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--faint"), font: { color: colour("--ink") }, align: "left", namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--ink") },
    separators: ".", // none between thousands: days are counted in MJD
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    showlegend: names.length > 1,
  };
}

function draw(panel, place) {
  const style = coloured(layout(panel, place.clientWidth));
  for (const axis of place.layout ? ["xaxis", "yaxis"] : []) { // drawn before: what was zoomed into stays
    const { range, autorange } = place.layout[axis];
    Object.assign(style[axis], { range: [...range], autorange });
  }
  return Plotly.react(place, panel.figure.data.map(coloured), style, config);
}

// panels with the same axis show the same part of it
function follow(from, event) {
  if (moving) return;
  const all = [];
  for (const { panel, place } of drawn) {
    if (place === from.place) continue;
    const change = {};
    for (const [axis, what] of Object.entries(from.panel.along)) {
      if (panel.along[axis] !== what || Object.keys(panel.along).length !== Object.keys(from.panel.along).length) continue;
      if (panel.figure.layout[axis].type !== from.panel.figure.layout[axis].type) continue;
      if (event[`${axis}.autorange`]) change[`${axis}.autorange`] = true;
      else if (Object.keys(event).some((key) => key.startsWith(`${axis}.range`))) change[`${axis}.range`] = [...from.place.layout[axis].range];
    }
    if (Object.keys(change).length) all.push(() => Plotly.relayout(place, change));
  }
  moving = true;
  Promise.all(all.map((move) => move())).finally(() => { moving = false; });
}

function show(member) {
  drawn.forEach(({ place }) => Plotly.purge(place));
  drawn = [];
  const head = element("h2", `${member.name} `);
  head.append(element("span", member.label, { className: `badge ${member.state}` }));
  const said = member.said.map((text) => element("p", text, { className: member.state === "bad" ? "note bad" : "note" }));
  const stored = document.getElementById(`figures-${member.anchor}`);
  if (!stored) {
    said.push(element("p", member.large ? "Its figures are left out, for there is no room for all." : `This ${noun} has no figures.`, { className: "quiet" }));
  }
  const grid = element("div", null, { className: "plots" });
  section.replaceChildren(head, ...said, grid);
  for (const panel of stored ? JSON.parse(stored.textContent) : []) {
    const box = element("div", null, { className: "shape" in panel ? "plot image" : "plot" });
    const place = element("div", null);
    box.append(element("h3", panel.title), place, ...panel.notes.map((note) => element("p", note, { className: "quiet" })));
    grid.append(box);
    drawn.push({ panel, place });
  }
  for (const each of drawn) {
    draw(each.panel, each.place);
    each.place.on("plotly_relayout", (event) => follow(each, event));
  }
}

function choose(place) {
  const at = Math.min(Math.max(place, 0), members.length - 1);
  menu.selectedIndex = at;
  back.disabled = at === 0;
  on.disabled = at === members.length - 1;
  history.replaceState(null, "", `#${members[at].anchor}`);
  show(members[at]);
}

function wanted() {
  return members.findIndex((member) => `#${member.anchor}` === decodeURIComponent(location.hash));
}

const menu = element("select", null, { ariaLabel: noun });
for (const member of members) menu.append(element("option", `${member.name}: ${member.label}`));
menu.addEventListener("change", () => choose(menu.selectedIndex));
const back = element("button", "‹ previous", { type: "button" });
back.addEventListener("click", () => choose(menu.selectedIndex - 1));
const on = element("button", "next ›", { type: "button" });
on.addEventListener("click", () => choose(menu.selectedIndex + 1));
if (members.length > 1) document.getElementById("choice").append(menu, back, on);
addEventListener("hashchange", () => choose(wanted()));
for (const change of [dark, matchMedia("(max-width: 760px)")]) {
  change.addEventListener("change", () => drawn.forEach(({ panel, place }) => draw(panel, place)));
}
choose(wanted());
