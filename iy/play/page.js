// The form and what its buttons do.
import { get, given, news, post } from "./talk.js";
import { add, again, people, proportion, slider } from "./people.js";
import * as results from "./results.js";

const at = id => document.getElementById(id);
let models = given.models, described = {}, crop = "", weights = {}, styles = {}, touched = !given.champion, drawing = null;

function say(text, trouble = false) { at("said").textContent = text; at("said").classList.toggle("trouble", trouble); }

const chosen = () => [...new Set([at("first").value, at("second").value].filter(Boolean))];
const title = id => models.find(model => model.id === id).title;

function offer() {
  const [first, second] = [at("first").value, at("second").value];
  const options = () => models.map(model => new Option(model.title, model.id));
  at("first").replaceChildren(...options());
  at("second").replaceChildren(new Option("nothing", ""), ...options());
  if (first) at("first").value = first;
  at("second").value = second;
}

/** Take up the chosen models: their branches, their size, and the crops that they read. */
async function choose() {
  const keys = chosen();
  for (const key of keys) described[key] ??= await get(`model?${new URLSearchParams({ key })}`);
  if (keys.join() !== chosen().join()) return; // another choice was made meanwhile
  const names = [...new Set(keys.flatMap(key => described[key].branches))];
  weights = Object.fromEntries(names.map(name => [name, weights[name] ?? 1]));
  at("branches").replaceChildren(...names.map(name => slider(name, weights[name], value => { weights[name] = value; })));
  resized();
  const crops = JSON.stringify(keys.map(key => described[key].crop));
  if (crop && crop !== crops && people.length) await again(keys);
  crop = crops;
}

function resized() {
  const size = described[chosen()[0]]?.size ?? 1;
  proportion(at("width").value || size, at("height").value || size);
}

const number = id => at(id).value === "" ? null : Number(at(id).value);

function asked() {
  const seeds = at("seeds").value.split(/[\s,]+/).filter(Boolean).map(Number);
  if (!seeds.length || seeds.length > given.seeds || !seeds.every(seed => Number.isSafeInteger(seed) && seed >= 0))
    throw new Error(`seeds: give one to ${given.seeds} whole numbers`);
  return {
    models: chosen(), prompt: at("prompt").value, negative: at("negative").value, seeds,
    steps: number("steps"), guidance: number("guidance"), identity_guidance: number("identity_guidance"),
    width: number("width"), height: number("height"),
    people: people.map(({ face, strength, region }) => ({ face, strength, region })),
    branches: weights,
    styles: Object.entries(styles).filter(([, weight]) => weight > 0).map(([name, weight]) => ({ name, weight })),
  };
}

function heard(one, wanted) {
  const bar = at("bar"), before = Math.max(0, wanted.models.indexOf(one.model));
  if (one.waits) say("another drawing is under way: this one waits …");
  if (one.opens) say(`opening ${one.opens} …`);
  if (one.step) {
    say(`${title(one.model)}: step ${one.step} of ${one.of}`);
    bar.value = before + one.step / one.of;
    results.preview(one.model, one.previews);
  }
  if (one.pictures) results.show(one.model, one.pictures, say);
}

async function draw(event) {
  event.preventDefault();
  if (drawing) return;
  drawing = new AbortController();
  at("draw").disabled = true; at("stop").disabled = false; at("python").hidden = true;
  say("");
  try {
    const wanted = asked(), started = performance.now();
    results.lay(wanted.models.map(id => ({ id, title: title(id) })), wanted.seeds, wanted.width ?? described[wanted.models[0]].size);
    Object.assign(at("bar"), { hidden: false, max: wanted.models.length, value: 0 });
    for await (const one of news("draw", wanted, drawing.signal)) heard(one, wanted);
    say(`drawn in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (error.name === "AbortError") say("stopped"); else say(error.message, true);
  } finally {
    drawing = null;
    at("draw").disabled = false; at("stop").disabled = true; at("bar").hidden = true;
  }
}

async function copy() {
  try {
    const { python } = await post("code", asked());
    Object.assign(at("python"), { hidden: false, textContent: python });
    await navigator.clipboard?.writeText(python);
    say(navigator.clipboard ? "copied; it stands below too" : "it stands below");
  } catch (error) { say(error.name === "NotAllowedError" ? "it stands below" : error.message, error.name !== "NotAllowedError"); }
}

async function take(files) { await add([...files], chosen(), say); }

function prepare() {
  for (const [name, value] of Object.entries(given.draw)) at(name).value = value;
  at("styled").hidden = !given.styles.length;
  at("styles").replaceChildren(...given.styles.map(name => slider(name, 0, value => { styles[name] = value; })));
  const drop = at("drop");
  drop.ondragover = event => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = event => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files); };
  at("files").onchange = async () => { const files = [...at("files").files]; at("files").value = ""; await take(files); };
  for (const id of ["first", "second"]) at(id).onchange = () => { touched = true; choose().catch(trouble); };
  for (const id of ["width", "height"]) at(id).oninput = resized;
  at("others").onclick = () => {
    const count = Math.max(1, at("seeds").value.split(/[\s,]+/).filter(Boolean).length);
    at("seeds").value = Array.from({ length: count }, () => Math.floor(Math.random() * 1e9)).join(", ");
  };
  at("asked").onsubmit = draw;
  at("stop").onclick = () => drawing?.abort();
  at("copy").onclick = copy;
}

const trouble = error => say(error.message, true);

/** The models of the registry come later: asking it takes seconds. */
async function complete() {
  models = await get("models");
  offer();
  const champion = models.find(model => model.champion);
  if (!champion || touched) return;
  at("first").value = champion.id;
  await choose();
}

prepare();
offer();
choose().then(complete).catch(trouble);
