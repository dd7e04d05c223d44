// The lists of episodes and training trajectories, with their filters.

const ROWS = 50; // of a page of a list
const lists = {
  episodes: { found: [], page: 0, sort: null, down: false, filter: {} },
  training: { found: [], page: 0, sort: null, down: false, filter: {} },
};

const COLUMNS = {
  episodes: [
    ["task", EPISODE.task, true], ["agent", EPISODE.agent, true], ["run", EPISODE.run, true],
    ["split", EPISODE.split, true], ["reward", EPISODE.reward], ["steps", EPISODE.steps],
    ["deliberated", EPISODE.deliberated], ["tokens", EPISODE.tokens], ["end", EPISODE.end, true],
  ],
  training: [
    ["trajectory", TRAJECTORY.id, true], ["run", TRAJECTORY.run, true], ["steps", TRAJECTORY.steps], ["flagged", TRAJECTORY.flagged],
    ["deliberated", TRAJECTORY.deliberated], ["reward", TRAJECTORY.reward],
  ],
};

const FILTERS = {
  episodes: [
    choice("run", EPISODE.run), choice("agent", EPISODE.agent), choice("split", EPISODE.split),
    choice("task type", EPISODE.kind),
    text("task contains", (row, wanted) => row[EPISODE.task].toLowerCase().includes(wanted)),
    number("reward from", (row, bound) => row[EPISODE.reward] >= bound),
    number("reward to", (row, bound) => row[EPISODE.reward] <= bound),
    check("successful", (row) => row[EPISODE.success]), check("deliberated", (row) => row[EPISODE.deliberated] > 0),
  ],
  training: [
    choice("run", TRAJECTORY.run),
    text("id or task contains", (row, wanted) => `${row[TRAJECTORY.id]} ${row[TRAJECTORY.instruction]}`.toLowerCase().includes(wanted)),
    check("flagged", (row) => row[TRAJECTORY.flagged] > 0), check("deliberated", (row) => row[TRAJECTORY.deliberated] > 0),
  ],
};

function choice(label, column) {
  return { label, column, type: "select", keeps: (row, wanted) => row[column] === wanted };
}
function text(label, keeps) {
  return { label, type: "search", keeps: (row, wanted) => keeps(row, wanted.toLowerCase()) };
}
function number(label, keeps) {
  return { label, type: "number", keeps: (row, wanted) => keeps(row, Number(wanted)) };
}
function check(label, keeps) {
  return { label, type: "checkbox", keeps };
}

function control(name, filter) {
  const state = lists[name].filter;
  const changed = (value) => { state[filter.label] = value; lists[name].page = 0; fillList(name); };
  if (filter.type === "checkbox") {
    const box = el("input", { type: "checkbox", checked: Boolean(state[filter.label]), onchange: (e) => changed(e.target.checked) });
    return el("label", { className: "check" }, box, filter.label);
  }
  if (filter.type === "select") {
    const values = [...new Set(INDEX[name].map((row) => row[filter.column]))].sort();
    if (values.length < 2) return null;
    const options = ["", ...values].map((value) => el("option", { value }, value || "all"));
    const select = el("select", { onchange: (e) => changed(e.target.value) }, ...options);
    select.value = state[filter.label] || "";
    return el("label", {}, filter.label, select);
  }
  const bounds = filter.type === "number" ? { min: 0, max: 1, step: 0.05 } : {};
  const input = el("input", { type: filter.type, ...bounds, value: state[filter.label] || "", oninput: (e) => changed(e.target.value) });
  return el("label", {}, filter.label, input);
}

function showList(name) {
  const title = name === "episodes" ? "Evaluated episodes" : "Training trajectories";
  view.replaceChildren(
    el("h2", {}, title),
    el("form", { className: "filters", onsubmit: (e) => e.preventDefault() }, ...FILTERS[name].map((f) => control(name, f))),
    el("div", { id: "found" }),
  );
  fillList(name);
}

function select(name) {
  const state = lists[name];
  const active = FILTERS[name].filter((f) => state.filter[f.label] !== undefined && state.filter[f.label] !== "" && state.filter[f.label] !== false);
  const found = INDEX[name].map((row, at) => at).filter((at) => active.every((f) => f.keeps(INDEX[name][at], state.filter[f.label])));
  if (state.sort !== null) {
    const order = (a, b) => (a > b) - (a < b);
    found.sort((a, b) => order(INDEX[name][a][state.sort], INDEX[name][b][state.sort]) * (state.down ? -1 : 1) || a - b);
  }
  state.found = found;
}

function fillList(name) {
  const state = lists[name];
  select(name);
  const pages = Math.max(1, Math.ceil(state.found.length / ROWS));
  const turn = (by) => { state.page += by; fillList(name); };
  const visible = state.found.slice(state.page * ROWS, (state.page + 1) * ROWS);
  document.getElementById("found").replaceChildren(
    el("div", { className: "pages" },
      el("span", { id: "count" }, `${state.found.length.toLocaleString("en")} of ${INDEX[name].length.toLocaleString("en")}`),
      el("button", { type: "button", disabled: state.page === 0, onclick: () => turn(-1) }, "previous"),
      el("span", {}, `page ${state.page + 1} of ${pages}`),
      el("button", { type: "button", disabled: state.page + 1 >= pages, onclick: () => turn(1) }, "next")),
    table(headings(name), visible.map((at) => listRow(name, at))),
  );
}

function headings(name) {
  const state = lists[name];
  const sortBy = (column) => { state.down = state.sort === column && !state.down; state.sort = column; fillList(name); };
  const mark = (column) => (state.sort === column ? (state.down ? " ↓" : " ↑") : "");
  return el("tr", {}, ...COLUMNS[name].map(([label, column, left]) =>
    el("th", { className: left ? "text" : "" }, el("button", { type: "button", onclick: () => sortBy(column) }, label + mark(column)))));
}

function listRow(name, at) {
  const row = INDEX[name][at];
  const link = el("a", { href: `#${name === "episodes" ? "episode" : "training"}/${at}` }, String(row[COLUMNS[name][0][1]]));
  const cells = COLUMNS[name].slice(1).map(([label, column, left]) =>
    el("td", { className: left ? "text" : "" }, label === "reward" ? row[column].toFixed(2) : String(row[column])));
  return el("tr", {}, el("td", {}, link), ...cells);
}
