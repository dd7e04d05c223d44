// The page of one episode.

function showEpisode(episode, at) {
  const row = INDEX.episodes[at];
  const tokens = `${row[EPISODE.tokens].toLocaleString("en")} tokens`;
  view.replaceChildren(
    neighbours("episodes", "episode", at),
    el("h2", {}, row[EPISODE.task]),
    facts([row[EPISODE.agent], row[EPISODE.run], row[EPISODE.split], `end: ${row[EPISODE.end]}`, tokens], row[EPISODE.reward], row[EPISODE.success]),
    el("p", { className: "verbatim" }, episode.instruction),
    ...stepsView(episode.steps),
    el("p", { className: "notes" }, "Keys: j and k select the next and previous step, n and p open the next and previous episode."),
  );
}

function facts(texts, reward, success) {
  const badge = el("span", { className: `badge ${success ? "good" : "bad"}` }, `reward ${reward.toFixed(2)}`);
  return el("div", { className: "facts" }, badge, ...texts.map((t) => el("span", {}, t)));
}

// Links to the list, and to the entries before and after this one in the filtered list.
function neighbours(list, target, at) {
  if (!lists[list].found.length) select(list);
  const place = lists[list].found.indexOf(at);
  const link = (by, label, id) => {
    const other = lists[list].found[place + by];
    return place < 0 || other === undefined ? null : el("a", { id, href: `#${target}/${other}` }, label);
  };
  return el("div", { className: "neighbours" },
    el("a", { href: `#${list}` }, "all"), link(-1, "← previous", "previous"), link(1, "next →", "next"));
}

function stepsView(steps, first = 0) {
  return steps.map((step, n) => el("div", { className: `step${step.deliberated ? " deliberated" : ""}`, tabIndex: 0 },
    el("div", { className: "heading" }, `step ${first + n}, score ${step.score.toFixed(2)}${step.deliberated ? ", deliberated" : ""}`),
    step.thought ? el("p", { className: "verbatim" }, el("b", {}, "Thought: "), step.thought) : null,
    el("p", {}, el("b", {}, "Action: "), step.action ? el("code", {}, step.action) : "(none)"),
    el("div", { className: "observation verbatim" }, step.observation)));
}
