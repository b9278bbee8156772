// How the page speaks with the server: every post carries the page's own token; errors are the server's sentences.
export const given = JSON.parse(document.getElementById("given").textContent);
const headers = { "X-Page": given.token };

async function answered(path, options = {}) {
  let answer;
  try { answer = await fetch(path, options); }
  catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer: is `iy play` still running?");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `the server says ${answer.status}`);
  return answer;
}

const json = body => ({ method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } });

export const get = async path => (await answered(path)).json();
export const post = async (path, body) => (await answered(path, json(body))).json();
export const send = async (path, file) =>
  (await answered(path, { method: "POST", body: file, headers: { ...headers, "Content-Type": "application/octet-stream" } })).json();

/** Each line that the server sends while it works, as it comes; the last one is {done} or throws what went wrong. */
export async function* news(path, body, signal) {
  const reader = (await answered(path, { ...json(body), signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let left = ""; ;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server ended before the pictures were drawn");
    const lines = (left + value).split("\n");
    left = lines.pop();
    for (const one of lines.map(line => JSON.parse(line))) {
      if (one.error) throw new Error(one.error);
      if (one.done) return;
      yield one;
    }
  }
}

setInterval(() => post("beat", {}).catch(() => {}), 60000);
addEventListener("pagehide", () => fetch("close", { ...json({}), keepalive: true }));
addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
