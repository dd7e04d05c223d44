// One training trajectory, and one step of it: candidates, rollouts, critiques, thought.

function showLesson(lesson, at, wanted) {
  const chosen = wanted in lesson.trained.steps ? wanted : null; // a link may name a step that is not there
  const row = INDEX.training[at];
  const parted = partedAt(lesson);
  const flagged = new Set(lesson.samples.filter((s) => s.deliberate && s.step <= parted).map((s) => s.step));
  const rows = lesson.trained.steps.map((step, n) => el("tr", { className: n === chosen ? "here" : "" },
    el("td", {}, el("a", { href: `#training/${at}/step/${n}`, "aria-current": String(n === chosen) }, `${n}`)),
    el("td", { className: "text" }, el("code", {}, step.action)),
    el("td", { className: "text" }, flagged.has(n) ? "of two minds" : ""),
    el("td", { className: "text" }, step.deliberated ? "deliberated" : ""),
    el("td", {}, step.score.toFixed(2))));
  const head = ["step", "action", "samples", "thought", "score"].map((label, n) => el("th", { className: n < 4 ? "text" : "" }, label));
  view.replaceChildren(...[
    ways("training", "training", at),
    el("h2", {}, row[LESSON.id]),
    facts([row[LESSON.run], lesson.trained.source], lesson.trained.reward, lesson.trained.success),
    el("p", { className: "told" }, lesson.trained.instruction),
    el("div", { className: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))),
    parted === Infinity ? null : el("details", { id: "left" },
      el("summary", {}, `from step ${parted} on the expert went another way`), ...steps(lesson.expert.steps.slice(parted), parted)),
    ...(chosen === null ? [] : chosen <= parted ? oneStep(lesson, chosen) : followed(lesson, chosen)),
  ].filter(Boolean));
}

// The step at which a candidate took the expert's place. What was sampled after it belongs to the expert's path.
function partedAt(lesson) {
  const found = lesson.trained.steps.findIndex((step, n) => step.action !== lesson.expert.steps[n]?.action);
  return found < 0 ? Infinity : found;
}

function followed(lesson, n) {
  return [
    el("h3", { id: "step" }, `Step ${n}`),
    el("details", {}, el("summary", {}, `history: ${n} steps`), ...steps(lesson.trained.steps.slice(0, n))),
    el("h3", {}, "Trained on"), ...steps([lesson.trained.steps[n]], n),
  ];
}

function oneStep(lesson, n) {
  const at = (records) => records.filter((r) => r.step === n);
  const [sample] = at(lesson.samples);
  const [thought] = at(lesson.thoughts);
  const critiques = new Map(at(lesson.critiques).map((c) => [c.candidate, c.critique]));
  return [
    el("h3", { id: "step" }, `Step ${n}`),
    el("details", {}, el("summary", {}, `history: ${n} steps`), ...steps(lesson.expert.steps.slice(0, n))),
    sample ? candidates(sample, at(lesson.rollouts)) : null,
    ...at(lesson.rollouts).map((rollout) => rolledOut(rollout, critiques.get(rollout.candidate))),
    thought ? weighed(thought) : null,
    el("h3", {}, "Original"), ...steps([lesson.expert.steps[n]], n),
    el("h3", {}, "Trained on"), ...steps([lesson.trained.steps[n]], n),
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
