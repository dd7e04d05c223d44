// The page of one training trajectory, and of one of its steps: candidates, rollouts, critiques, deliberation.

function showTrajectory(data, at, wanted) {
  const chosen = wanted in data.trained.steps ? wanted : null; // a link may name a step that does not exist
  const row = INDEX.training[at];
  const switched = switchStep(data);
  view.replaceChildren(...[
    neighbours("training", "training", at),
    el("h2", {}, row[TRAJECTORY.id]),
    facts([row[TRAJECTORY.run], data.trained.source], data.trained.reward, data.trained.success),
    el("p", { className: "verbatim" }, data.trained.instruction),
    stepTable(data, at, chosen, switched),
    switched === Infinity ? null : el("details", { id: "replaced" },
      el("summary", {}, `the expert's original steps from step ${switched} on`), ...stepsView(data.expert.steps.slice(switched), switched)),
    ...(chosen === null ? [] : chosen <= switched ? stepBeforeSwitch(data, chosen) : stepAfterSwitch(data, chosen)),
  ].filter(Boolean));
}

// The step at which a candidate replaced the expert. Samples of later steps belong to the expert's original path.
function switchStep(data) {
  const found = data.trained.steps.findIndex((step, n) => step.action !== data.expert.steps[n]?.action);
  return found < 0 ? Infinity : found;
}

function stepTable(data, at, chosen, switched) {
  const flagged = new Set(data.samples.filter((s) => s.deliberate && s.step <= switched).map((s) => s.step));
  const rows = data.trained.steps.map((step, n) => el("tr", { className: n === chosen ? "chosen" : "" },
    el("td", {}, el("a", { href: `#training/${at}/step/${n}`, "aria-current": String(n === chosen) }, `${n}`)),
    el("td", { className: "text" }, el("code", {}, step.action)),
    el("td", { className: "text" }, flagged.has(n) ? "flagged" : ""),
    el("td", { className: "text" }, step.deliberated ? "deliberated" : ""),
    el("td", {}, step.score.toFixed(2))));
  const head = ["step", "action", "samples", "thought", "score"].map((label, n) => el("th", { className: n < 4 ? "text" : "" }, label));
  return table(el("tr", {}, ...head), rows);
}

function stepAfterSwitch(data, n) {
  return [
    el("h3", { id: "step" }, `Step ${n}`), historyView(data.trained.steps, n),
    el("h3", {}, "Trained on"), ...stepsView([data.trained.steps[n]], n),
  ];
}

function stepBeforeSwitch(data, n) {
  const at = (records) => records.filter((r) => r.step === n);
  const [sample] = at(data.samples);
  const [thought] = at(data.thoughts);
  const critiques = new Map(at(data.critiques).map((c) => [c.candidate, c.critique]));
  return [
    el("h3", { id: "step" }, `Step ${n}`), historyView(data.expert.steps, n),
    sample ? candidatesView(sample, at(data.rollouts)) : null,
    ...at(data.rollouts).map((rollout) => rolloutView(rollout, critiques.get(rollout.candidate))),
    thought ? thoughtView(thought) : null,
    el("h3", {}, "Original"), ...stepsView([data.expert.steps[n]], n),
    el("h3", {}, "Trained on"), ...stepsView([data.trained.steps[n]], n),
  ].filter(Boolean);
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function historyView(steps, n) {
  return el("details", {}, el("summary", {}, `history: ${count(n, "step")}`), ...stepsView(steps.slice(0, n)));
}

function candidatesView(sample, rollouts) {
  const byCandidate = new Map(rollouts.map((r) => [r.candidate, r]));
  const rows = sample.candidates.map((candidate, k) => el("tr", {},
    el("td", {}, el("code", {}, candidate.action)), el("td", { className: "text" }, k === 0 ? "expert" : ""),
    el("td", {}, String(candidate.count)),
    el("td", {}, byCandidate.get(k)?.reward.toFixed(2) ?? ""), el("td", { className: "text" }, byCandidate.get(k)?.end ?? "")));
  const head = ["action", "", "samples", "reward", "end"].map((label) => el("th", {}, label));
  return el("div", {}, el("h3", {}, `Candidates from ${count(sample.drawn, "sample")}, ${sample.unparsable} unparsable`),
    table(el("tr", {}, ...head), rows));
}

function rolloutView(rollout, critique) {
  const name = rollout.expert ? "expert" : `candidate ${rollout.candidate}`;
  return el("details", { className: "rollout" },
    el("summary", {}, `${name}: `, el("code", {}, rollout.action), ` → reward ${rollout.reward.toFixed(2)}, ${rollout.end}`),
    critique ? el("p", { className: "verbatim" }, el("b", {}, "Critique: "), critique) : null,
    ...stepsView(rollout.steps, rollout.step));
}

function thoughtView(thought) {
  const text = thought.thought || "(no attempt passed the checks: the step keeps its original thought)";
  return el("div", { id: "thought" }, el("h3", {}, `Deliberation, ${count(thought.attempts, "attempt")}`),
    el("p", { className: "step deliberated verbatim", tabIndex: 0 }, text),
    ...thought.rejected.map((reason) => el("p", { className: "notes bad" }, `rejected: ${reason}`)));
}
