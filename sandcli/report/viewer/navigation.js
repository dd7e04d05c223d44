// Navigation: the hash of the address says what is shown. And keyboard shortcuts.

async function go() {
  const hash = location.hash;
  const [place, number, , step] = hash.slice(1).split("/");
  const at = Number(number);
  front.hidden = Boolean(place) && place !== "report";
  view.hidden = !front.hidden;
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.hash.slice(1) === (place === "episode" ? "episodes" : place || "report");
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (view.hidden) return;
  const exists = (kind) => number !== undefined && INDEX[kind][at] !== undefined;
  const kind = place === "training" ? "training" : "episodes";
  const found = ["episode", "training"].includes(place) && exists(kind) ? await record(kind, at) : null;
  if (location.hash !== hash) return; // the reader went elsewhere while the block was decompressed
  if (found === null) showList(kind);
  else if (kind === "training") showTrajectory(found, at, step === undefined ? null : Number(step));
  else showEpisode(found, at);
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
  if (event.key === "n") document.getElementById("next")?.click();
  if (event.key === "p") document.getElementById("previous")?.click();
});
addEventListener("hashchange", go);
go();
