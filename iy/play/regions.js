// Where in the picture each person belongs: a box per person, drawn by dragging, in shares of the picture.
const SMALLEST = 0.04; // of a side: less is a click, which takes the box away

export const COLOURS = ["#1f6feb", "#d9480f", "#2b8a3e", "#ae3ec9"];
const rounded = value => Math.round(Math.min(1, Math.max(0, value)) * 100) / 100;

/** Boxes of `people()` ({region, colour, name}) on `element`; a drag sets the region of `chosen()`, then `changed()`. */
export function regions(element, people, chosen, changed) {
  let start = null;

  function show() {
    element.replaceChildren(...people().filter(one => one.region).map(one => {
      const box = document.createElement("div"), [x0, y0, x1, y1] = one.region;
      box.className = "box";
      box.dataset.name = one.name;
      box.style.setProperty("--colour", one.colour);
      Object.assign(box.style, { left: `${100 * x0}%`, top: `${100 * y0}%`,
        width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%` });
      return box;
    }));
  }

  function place(event) {
    const { left, top, width, height } = element.getBoundingClientRect();
    return [rounded((event.clientX - left) / width), rounded((event.clientY - top) / height)];
  }

  function drag(event) {
    const [x, y] = place(event), box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
    chosen().region = box[2] - box[0] < SMALLEST || box[3] - box[1] < SMALLEST ? null : box;
    show();
  }

  element.onpointerdown = event => {
    if (!chosen()) return;
    start = place(event);
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
  };
  element.onpointermove = event => { if (start) drag(event); };
  element.onpointerup = event => { if (start) { drag(event); start = null; changed(); } };
  element.onpointercancel = () => { start = null; };
  return { show };
}

/** "0 0 0.5 1" as a box, null for an empty text, undefined for any other. */
export function edges(text) {
  if (!text.trim()) return null;
  const box = text.trim().split(/[\s,]+/).map(Number);
  return box.length === 4 && box.every(value => value >= 0 && value <= 1) && box[0] < box[2] && box[1] < box[3]
    ? box : undefined;
}
