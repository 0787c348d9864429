// Keys are revealed where they stand, each time with a line in the audit log, and can be copied or hidden again.

import { Failed, api } from "./api.js";

function secret(id, label, key) {
  const part = Object.assign(document.createElement("div"), { className: "key" });
  const says = Object.assign(document.createElement("span"), { className: "muted small", textContent: label });
  const value = Object.assign(document.createElement("code"), { id, textContent: key });
  const button = Object.assign(document.createElement("button"), { type: "button", className: "compact quiet", textContent: "Copy" });
  button.dataset.copy = id;
  button.setAttribute("aria-label", `Copy the ${label.toLowerCase()}`);
  const row = Object.assign(document.createElement("span"), { className: "secret" });
  row.append(value, button);
  part.append(says, row);
  return part;
}

async function reveal(form) {
  const id = form.dataset.keys;
  const place = Object.assign(document.createElement("div"), { className: "keys" });
  place.setAttribute("role", "status");
  try {
    const keys = await api(`/v1/datasets/${id}/keys`);
    const hide = Object.assign(document.createElement("button"), { type: "button", className: "compact quiet", textContent: "Hide" });
    hide.addEventListener("click", () => { place.replaceWith(form); form.querySelector("button").focus(); });
    place.append(secret(`write-${id}`, "Write key", keys.write_key), secret(`read-${id}`, "Read key", keys.read_key), hide);
    form.replaceWith(place);
    place.querySelector("button").focus();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    place.className = "wrong small";
    place.textContent = `${error.message} Try again.`;
    form.querySelector(".wrong")?.remove();
    form.append(place);
  } finally {
    for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-busy");
  }
}

for (const form of document.querySelectorAll("form[data-keys]")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); reveal(form); });
}
