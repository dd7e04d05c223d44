"use strict";
// Shared by the other scripts: the index, building elements, and reading a record from its compressed block.
// Texts come from models and worlds, so they are only ever inserted as text, never as HTML.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const EPISODE = Object.fromEntries(
  ["run", "agent", "split", "task", "kind", "reward", "success", "steps", "deliberated", "tokens", "end"].map((name, at) => [name, at]));
const TRAJECTORY = Object.fromEntries(
  ["run", "id", "instruction", "steps", "flagged", "deliberated", "reward"].map((name, at) => [name, at]));
const front = document.getElementById("front");
const view = document.getElementById("view");

function el(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function table(head, rows) {
  return el("div", { className: "wide" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
}

const blocks = new Map();

async function block(name) {
  if (!blocks.has(name)) {
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    if (blocks.size > 20) blocks.delete(blocks.keys().next().value);
    blocks.set(name, new Response(stream).json());
  }
  return blocks.get(name);
}

async function record(kind, number) {
  const size = INDEX.blocks[kind];
  return (await block(`${kind}-${Math.floor(number / size)}`))[number % size];
}
