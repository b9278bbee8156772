// The people: a card per photograph with the crop that the model sees, a strength and, for several, a place.
import { given, send } from "./talk.js";
import { COLOURS, edges, regions } from "./regions.js";

const at = id => document.getElementById(id);
const made = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

export let people = [];
let chosen = null;
const frame = regions(at("frame"), () => people, () => chosen, () => show());

/** A row of name, slider from 0 to 2 and its value; `set` is told of changes. */
export function slider(name, value, set) {
  const output = made("output", { textContent: value.toFixed(2) });
  const range = made("input", { type: "range", min: 0, max: 2, step: 0.05, value, ariaLabel: name });
  range.oninput = () => { output.textContent = Number(range.value).toFixed(2); set(Number(range.value)); };
  return made("label", { className: "slider" }, made("span", { textContent: name }), range, output);
}

const query = (file, models) => new URLSearchParams([["name", file.name], ...models.map(one => ["model", one])]);

/** Let the server find the face of a file, for these models. */
const look = (file, models) => send(`faces?${query(file, models)}`, file);

/** Add the people of dropped files; a sentence for each file that is of no use. */
export async function add(files, models, say) {
  const faults = [];
  for (const file of files) {
    if (people.length >= given.people) { faults.push(`${file.name}: at most ${given.people} people are drawn at once`); continue; }
    if (file.size > given.largest) { faults.push(`${file.name} is too large: at most ${given.largest / 2 ** 20} MB are taken`); continue; }
    say(`looking for the face in ${file.name} …`);
    try { enter({ file, ...await look(file, models), name: file.name, strength: 1, region: null }); }
    catch (error) { faults.push(error.message); }
  }
  say(faults.join(" · "), faults.length > 0);
}

function enter(person) {
  person.colour = COLOURS.find(colour => !people.some(one => one.colour === colour));
  people.push(person);
  chosen = person;
  show();
}

/** Show the photographs again to models that read other crops. */
export async function again(models) {
  for (const person of people) Object.assign(person, await look(person.file, models));
  show();
}

function show() {
  at("people").replaceChildren(...people.map(card));
  at("where").hidden = people.length < 2;
  at("whose").textContent = chosen ? chosen.name : "";
  frame.show();
}

function card(person) {
  const strength = slider("strength", person.strength, value => { person.strength = value; });
  const away = made("button", { type: "button", textContent: "remove", title: `remove ${person.name}` });
  away.onclick = () => {
    people = people.filter(one => one !== person);
    if (chosen === person) chosen = people.at(-1) ?? null;
    show();
  };
  const crops = person.crops.map(src => made("img", { src, alt: `what the model sees of ${person.name}` }));
  const rest = made("div", {}, made("div", { className: "named", textContent: person.name }), strength);
  if (people.length > 1) rest.append(place(person));
  const found = made("div", { className: "person" }, made("div", {}, ...crops), rest, away);
  found.classList.toggle("chosen", person === chosen && people.length > 1);
  found.style.setProperty("--colour", person.colour);
  found.onclick = event => { if (!event.target.closest("button, input") && chosen !== person) { chosen = person; show(); } };
  return found;
}

/** The box as four numbers, for those who do not drag. */
function place(person) {
  const field = made("input", { className: "edges", value: person.region?.join(" ") ?? "", placeholder: "anywhere",
    ariaLabel: `left, top, right and bottom edge of ${person.name}, 0 to 1`, title: "left, top, right, bottom: 0 to 1" });
  field.onfocus = () => { chosen = person; at("whose").textContent = person.name; };
  field.onchange = () => {
    const box = edges(field.value);
    field.setCustomValidity(box === undefined ? "left, top, right, bottom: four numbers from 0 to 1, the lower ones first" : "");
    if (!field.reportValidity()) return;
    person.region = box;
    frame.show();
  };
  return field;
}

export function proportion(width, height) { at("frame").style.aspectRatio = `${width} / ${height}`; }
