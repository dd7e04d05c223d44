"use strict";
// Texts come from models and worlds: they are only ever inserted as text.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const [RUN, AGENT, SPLIT, TASK, KIND, REWARD, SUCCESS, STEPS, DELIBERATED, TOKENS, END] = Array(11).keys();
const LESSON = { run: 0, id: 1, instruction: 2, steps: 3, flagged: 4, deliberated: 5, reward: 6 };
const ROWS = 50;
const front = document.getElementById("front");
const view = document.getElementById("view");
const lists = {
  episodes: { found: [], page: 0, sort: null, down: false, filter: {} },
  training: { found: [], page: 0, sort: null, down: false, filter: {} },
};

function el(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---- the packed texts

const unpacked = new Map();

async function unpack(name) {
  if (!unpacked.has(name)) {
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    if (unpacked.size > 20) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(name, new Response(stream).json());
  }
  return unpacked.get(name);
}

async function record(kind, number) {
  const size = INDEX.blocks[kind];
  return (await unpack(`${kind}-${Math.floor(number / size)}`))[number % size];
}

// ---- lists with filters

const COLUMNS = {
  episodes: [
    ["task", TASK, true], ["agent", AGENT, true], ["run", RUN, true], ["split", SPLIT, true], ["reward", REWARD],
    ["steps", STEPS], ["deliberated", DELIBERATED], ["tokens", TOKENS], ["end", END, true],
  ],
  training: [
    ["trajectory", LESSON.id, true], ["run", LESSON.run, true], ["steps", LESSON.steps], ["flagged", LESSON.flagged],
    ["deliberated", LESSON.deliberated], ["reward", LESSON.reward],
  ],
};

const FILTERS = {
  episodes: [
    choice("run", RUN), choice("agent", AGENT), choice("split", SPLIT), choice("task type", KIND),
    text("task contains", (row, wanted) => row[TASK].toLowerCase().includes(wanted)),
    number("reward from", (row, bound) => row[REWARD] >= bound), number("reward to", (row, bound) => row[REWARD] <= bound),
    check("successful", (row) => row[SUCCESS]), check("deliberated", (row) => row[DELIBERATED] > 0),
  ],
  training: [
    choice("run", LESSON.run),
    text("id or task contains", (row, wanted) => `${row[LESSON.id]} ${row[LESSON.instruction]}`.toLowerCase().includes(wanted)),
    check("flagged", (row) => row[LESSON.flagged] > 0), check("deliberated", (row) => row[LESSON.deliberated] > 0),
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
  const shown = state.found.slice(state.page * ROWS, (state.page + 1) * ROWS);
  document.getElementById("found").replaceChildren(
    el("div", { className: "pages" },
      el("span", { id: "count" }, `${state.found.length.toLocaleString("en")} of ${INDEX[name].length.toLocaleString("en")}`),
      el("button", { type: "button", disabled: state.page === 0, onclick: () => turn(-1) }, "previous"),
      el("span", {}, `page ${state.page + 1} of ${pages}`),
      el("button", { type: "button", disabled: state.page + 1 >= pages, onclick: () => turn(1) }, "next")),
    el("div", { className: "wide" }, el("table", {}, el("thead", {}, headings(name)), el("tbody", {}, ...shown.map((at) => line(name, at))))),
  );
}

function headings(name) {
  const state = lists[name];
  const sortBy = (column) => { state.down = state.sort === column && !state.down; state.sort = column; fillList(name); };
  const mark = (column) => (state.sort === column ? (state.down ? " ↓" : " ↑") : "");
  return el("tr", {}, ...COLUMNS[name].map(([label, column, left]) =>
    el("th", { className: left ? "text" : "" }, el("button", { type: "button", onclick: () => sortBy(column) }, label + mark(column)))));
}

function line(name, at) {
  const row = INDEX[name][at];
  const link = el("a", { href: `#${name === "episodes" ? "episode" : "training"}/${at}` }, String(row[COLUMNS[name][0][1]]));
  const cells = COLUMNS[name].slice(1).map(([label, column, left]) =>
    el("td", { className: left ? "text" : "" }, label === "reward" ? row[column].toFixed(2) : String(row[column])));
  return el("tr", {}, el("td", {}, link), ...cells);
}

// ---- one episode

async function showEpisode(at) {
  const episode = await record("episodes", at);
  const row = INDEX.episodes[at];
  view.replaceChildren(
    ways("episodes", "episode", at),
    el("h2", {}, row[TASK]),
    facts([row[AGENT], row[RUN], row[SPLIT], `ended: ${row[END]}`, `${row[TOKENS].toLocaleString("en")} tokens`], row[REWARD], row[SUCCESS]),
    el("p", { className: "told" }, episode.instruction),
    ...steps(episode.steps),
    el("p", { className: "notes" }, "Keys: j and k go from step to step, n and p to the next and previous of the list."),
  );
}

function facts(texts, reward, success) {
  const badge = el("span", { className: `badge ${success ? "good" : "bad"}` }, `reward ${reward.toFixed(2)}`);
  return el("div", { className: "facts" }, badge, ...texts.map((t) => el("span", {}, t)));
}

function ways(list, target, at) {
  if (!lists[list].found.length) select(list);
  const place = lists[list].found.indexOf(at);
  const step = (by, label, id) => {
    const other = lists[list].found[place + by];
    return place < 0 || other === undefined ? null : el("a", { id, href: `#${target}/${other}` }, label);
  };
  return el("div", { className: "ways" }, el("a", { href: `#${list}` }, "all"), step(-1, "← previous", "before"), step(1, "next →", "after"));
}

function steps(taken, first = 0) {
  return taken.map((step, n) => el("div", { className: `step${step.deliberated ? " weighed" : ""}`, tabIndex: 0 },
    el("div", { className: "what" }, `step ${first + n}, score ${step.score.toFixed(2)}${step.deliberated ? ", deliberated" : ""}`),
    step.thought ? el("p", { className: "told" }, el("b", {}, "Thought: "), step.thought) : null,
    el("p", {}, el("b", {}, "Action: "), step.action ? el("code", {}, step.action) : "(none)"),
    el("div", { className: "seen told" }, step.observation)));
}

// ---- one training trajectory, and one step of it

async function showLesson(at, chosen) {
  const lesson = await record("training", at);
  const row = INDEX.training[at];
  const flagged = new Set(lesson.samples.filter((s) => s.deliberate).map((s) => s.step));
  const rows = lesson.trained.steps.map((step, n) => el("tr", { className: n === chosen ? "here" : "" },
    el("td", {}, el("a", { href: `#training/${at}/step/${n}`, "aria-current": String(n === chosen) }, `${n}`)),
    el("td", { className: "text" }, el("code", {}, step.action)),
    el("td", { className: "text" }, flagged.has(n) ? "of two minds" : ""),
    el("td", { className: "text" }, step.deliberated ? "deliberated" : ""),
    el("td", {}, step.score.toFixed(2))));
  const head = ["step", "action", "samples", "thought", "score"].map((label, n) => el("th", { className: n < 4 ? "text" : "" }, label));
  view.replaceChildren(
    ways("training", "training", at),
    el("h2", {}, row[LESSON.id]),
    facts([row[LESSON.run], lesson.trained.source], lesson.trained.reward, lesson.trained.success),
    el("p", { className: "told" }, lesson.trained.instruction),
    el("div", { className: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))),
    ...(chosen === null ? [] : oneStep(lesson, chosen)),
  );
}

function oneStep(lesson, n) {
  const at = (records) => records.filter((r) => r.step === n);
  const [sample] = at(lesson.samples);
  const [thought] = at(lesson.thoughts);
  const critiques = new Map(at(lesson.critiques).map((c) => [c.candidate, c.critique]));
  const [before, after] = [lesson.expert.steps[n], lesson.trained.steps[n]];
  return [
    el("h3", { id: "step" }, `Step ${n}`),
    el("details", {}, el("summary", {}, `history: ${n} steps`), ...steps(lesson.expert.steps.slice(0, n))),
    sample ? candidates(sample, at(lesson.rollouts)) : null,
    ...at(lesson.rollouts).map((rollout) => rolledOut(rollout, critiques.get(rollout.candidate))),
    thought ? weighed(thought) : null,
    el("h3", {}, "Original"), ...(before ? steps([before], n) : [el("p", {}, "(the expert's path was shorter)")]),
    el("h3", {}, "Trained on"), ...steps([after], n),
  ].filter(Boolean);
}

function candidates(sample, rollouts) {
  const reward = new Map(rollouts.map((r) => [r.candidate, r]));
  const rows = sample.candidates.map((candidate, k) => el("tr", {},
    el("td", {}, el("code", {}, candidate.action)), el("td", { className: "text" }, k === 0 ? "expert" : ""),
    el("td", {}, String(candidate.count)),
    el("td", {}, reward.has(k) ? reward.get(k).reward.toFixed(2) : ""), el("td", { className: "text" }, reward.has(k) ? reward.get(k).end : "")));
  const head = ["action", "", "draws", "reward", "end"].map((label) => el("th", {}, label));
  return el("div", {}, el("h3", {}, `Candidates of ${sample.drawn} draws, ${sample.unparsable} unparsable`),
    el("div", { className: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))));
}

function rolledOut(rollout, critique) {
  const who = rollout.expert ? "expert" : `candidate ${rollout.candidate}`;
  return el("details", { className: "rollout" },
    el("summary", {}, `${who}: `, el("code", {}, rollout.action), ` → reward ${rollout.reward.toFixed(2)}, ${rollout.end}`),
    critique ? el("p", { className: "told" }, el("b", {}, "Critique: "), critique) : null,
    ...steps(rollout.steps, rollout.step));
}

function weighed(thought) {
  return el("div", { id: "thought" }, el("h3", {}, `Deliberation after ${thought.attempts} attempts`),
    el("p", { className: "step weighed told", tabIndex: 0 }, thought.thought || "(none passed the checks: the original thought stays)"),
    ...thought.rejected.map((reason) => el("p", { className: "notes bad" }, `rejected: ${reason}`)));
}

// ---- where one is, and keys

async function go() {
  const [place, number, , step] = location.hash.slice(1).split("/");
  const at = Number(number);
  front.hidden = Boolean(place) && place !== "report";
  view.hidden = !front.hidden;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash.slice(1) === (place === "episode" ? "episodes" : place || "report");
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (view.hidden) return;
  const known = (kind) => number !== undefined && INDEX[kind][at] !== undefined;
  if (place === "episode" && known("episodes")) await showEpisode(at);
  else if (place === "training" && known("training")) await showLesson(at, step === undefined ? null : Number(step));
  else showList(place === "training" ? "training" : "episodes");
  const chosen = document.getElementById("step");
  if (chosen) chosen.scrollIntoView(); else scrollTo(0, 0);
}

function goToStep(by) {
  const all = [...view.querySelectorAll(".step")].filter((step) => step.checkVisibility());
  const next = all[all.indexOf(document.activeElement) + by];
  if (next) { next.focus(); next.scrollIntoView({ block: "center" }); }
}

addEventListener("keydown", (event) => {
  if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") goToStep(1);
  if (event.key === "k") goToStep(-1);
  if (event.key === "n") document.getElementById("after")?.click();
  if (event.key === "p") document.getElementById("before")?.click();
});
addEventListener("hashchange", go);
go();
