// The pictures: a column per model, a row per seed; first as they come out of the noise, then as they are.
import { post } from "./talk.js";

const at = id => document.getElementById(id);
const made = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

let figures = {};

/** Empty places for the pictures of models ([{id, title}]) and seeds; `width` pixels wide, where that can be seen well. */
export function lay(models, seeds, width) {
  figures = {};
  at("results").style.gridTemplateColumns = `repeat(${models.length}, minmax(0, ${Math.min(Math.max(width, 320), 768)}px))`;
  const rows = seeds.flatMap((seed, row) => models.map(model => {
    const figure = made("figure", {}, made("img", { alt: `seed ${seed}, ${model.title}` }), made("figcaption", {}, `seed ${seed}`));
    (figures[model.id] ??= [])[row] = figure;
    return figure;
  }));
  at("results").replaceChildren(...models.map(model => made("h2", { textContent: model.title })), ...rows);
}

export function preview(model, pictures) {
  pictures.forEach((picture, row) => { figures[model][row].querySelector("img").src = picture; });
}

export function show(model, pictures, say) {
  pictures.forEach((one, row) => {
    const figure = figures[model][row];
    Object.assign(figure.querySelector("img"), { src: one.png });
    figure.dataset.picture = one.id;
    const keep = made("button", { type: "button", textContent: "save" });
    keep.onclick = async () => {
      try {
        say(`saved to ${(await post("save", { id: one.id })).saved}, with its settings beside it`);
        keep.textContent = "saved";
        keep.disabled = true;
      } catch (error) { say(`Not saved: ${error.message}`, true); }
    };
    figure.querySelector("figcaption").append(keep, made("a", { href: one.png, download: `seed-${one.seed}.png`, textContent: "download" }));
  });
}
