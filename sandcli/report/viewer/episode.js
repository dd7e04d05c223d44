// One episode, step by step.

function showEpisode(episode, at) {
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
