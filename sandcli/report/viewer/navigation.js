// Where one is (the address's hash), and keys.

async function go() {
  const asked = location.hash;
  const [place, number, , step] = asked.slice(1).split("/");
  const at = Number(number);
  front.hidden = Boolean(place) && place !== "report";
  view.hidden = !front.hidden;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash.slice(1) === (place === "episode" ? "episodes" : place || "report");
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (view.hidden) return;
  const known = (kind) => number !== undefined && INDEX[kind][at] !== undefined;
  const kind = place === "training" ? "training" : "episodes";
  const found = ["episode", "training"].includes(place) && known(kind) ? await record(kind, at) : null;
  if (location.hash !== asked) return; // while it was unpacked one went elsewhere
  if (found === null) showList(kind);
  else if (kind === "training") showLesson(found, at, step === undefined ? null : Number(step));
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
  if (event.key === "n") document.getElementById("after")?.click();
  if (event.key === "p") document.getElementById("before")?.click();
});
addEventListener("hashchange", go);
go();
