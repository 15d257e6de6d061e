/* What every part of the page does with its elements: finds, reads and writes them, remembers switches, saves files. */

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
