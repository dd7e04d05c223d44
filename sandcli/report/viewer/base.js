"use strict";
// What the other scripts stand on: the index, an element, a record out of its packed block.
// Texts come from models and worlds: they are only ever inserted as text.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const [RUN, AGENT, SPLIT, TASK, KIND, REWARD, SUCCESS, STEPS, DELIBERATED, TOKENS, END] = Array(11).keys();
const LESSON = { run: 0, id: 1, instruction: 2, steps: 3, flagged: 4, deliberated: 5, reward: 6 };
const front = document.getElementById("front");
const view = document.getElementById("view");

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
