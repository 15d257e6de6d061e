/* What every part of the page does with its elements: finds, reads and writes them, remembers switches, takes keys, saves files. */

export const at = (id) => document.getElementById(id);
export const number = (id) => Number(at(id).value);
export const grouped = (value) => value.toLocaleString("en");
export const write = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
export const set = (id, name, value) => { if (at(id)[name] !== value) at(id)[name] = value; };

/* A switch or field keeps its value until the next visit, where the browser allows it. */
export function remember(id) {
  const element = at(id), name = element.type === "checkbox" ? "checked" : "value";
  try {
    const kept = localStorage.getItem(id);
    if (kept !== null) element[name] = JSON.parse(kept);
    element.addEventListener("change", () => localStorage.setItem(id, JSON.stringify(element[name])));
  } catch { /* storage is switched off, or holds something else: the default stays */ }
}

/* read(file) for each file that is chosen; complain(text) where it cannot be read. */
export function openFiles(id, read, complain) {
  at(id).addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file can be chosen again
    try {
      if (file) await read(file);
    } catch (error) {
      complain(`${file.name}: ${error.message}`);
    }
  });
}

/* Does what there is for the key that was pressed, letters in lower case, unless the browser, somebody who types or the open
help (which H closes) has a use for it. elsewhere: for keys that buttons, sliders and the like have a use for themselves. */
export function press(event, keys, elsewhere) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (at("help").open) {
    if (pressed === "h") at("help").close();
    return;
  }
  if (event.target.matches("select, input:not([type=range], [type=checkbox])")) return; // somebody types
  const act = keys[pressed] ?? (event.target.matches("input, button, summary") ? null : elsewhere[pressed]);
  if (!act) return;
  event.preventDefault();
  act();
}

/* The help opens by its button and closes by its own one, or by a click beside it. */
export function watchHelp() {
  const help = at("help");
  at("help-button").addEventListener("click", () => help.showModal());
  at("help-close").addEventListener("click", () => help.close());
  help.addEventListener("click", ({ clientX: x, clientY: y, detail }) => {
    const { left, right, top, bottom } = help.getBoundingClientRect();
    if (detail && (x < left || x > right || y < top || y > bottom)) help.close(); // detail 0: a key pressed a button
  });
}

/* As a download. */
export function save(content, name) {
  const blob = content instanceof Blob ? content : new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export function timestamp() {
  return new Date().toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "");
}
