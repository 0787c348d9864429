// What every page does beyond its HTML: true words for times, copying, questions before what cannot be undone, being offline.

const STEPS = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [2592000, 86400, "day"]];

/** `3 minutes ago`, `in 2 days`; beyond 30 days the date. The same words as the server's. */
export function ago(moment, now = new Date()) {
  const seconds = Math.trunc((now - moment) / 1000);
  const size = Math.abs(seconds);
  if (size < 5) return "just now";
  for (const [below, unit, name] of STEPS) {
    if (size < below) {
      const count = Math.trunc((seconds > 0 ? size : size + Math.trunc(unit / 2)) / unit);
      const text = `${count} ${name}${count === 1 ? "" : "s"}`;
      return seconds > 0 ? `${text} ago` : `in ${text}`;
    }
  }
  return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[datetime]:not([data-exact])")) {
    const moment = new Date(time.dateTime);
    time.textContent = ago(moment);
    time.title = moment.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  }
}

/** Say something to people who listen instead of looking. */
export function announce(text) {
  let place = document.getElementById("announcer");
  if (!place) {
    place = Object.assign(document.createElement("div"), { id: "announcer", className: "visually-hidden" });
    place.setAttribute("role", "status");
    document.body.append(place);
  }
  place.textContent = text;
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text.trim());
  } catch {
    // Without https browsers give no clipboard: select the text, so that one key copies it.
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (!document.execCommand("copy")) return announce("Selected: copy it with your keyboard.");
  }
  const label = button.textContent;
  button.textContent = "Copied";
  announce("Copied.");
  setTimeout(() => { button.textContent = label; }, 1500);
}

/** A dialog with the question of a form's data-confirm; resolves to whether to go on. */
export function confirmed(question, act = "Delete") {
  const dialog = document.createElement("dialog");
  const says = document.createElement("p");
  says.textContent = question;
  says.id = "question";
  dialog.setAttribute("aria-labelledby", "question");
  const row = Object.assign(document.createElement("form"), { method: "dialog", className: "row" });
  const no = Object.assign(document.createElement("button"), { textContent: "Cancel", value: "" });
  const yes = Object.assign(document.createElement("button"), { textContent: act, value: "yes", className: "danger" });
  row.append(yes, no);
  const stack = Object.assign(document.createElement("div"), { className: "stack" });
  stack.append(says, row);
  dialog.append(stack);
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(dialog.returnValue === "yes");
  }));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.method === "dialog") return;
  const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question && !form.dataset.agreed) {
    event.preventDefault();
    if (await confirmed(question, event.submitter?.dataset.act ?? form.dataset.act ?? "Delete")) {
      form.dataset.agreed = "yes";
      form.requestSubmit(event.submitter);
    }
    return;
  }
  if (event.defaultPrevented) return;
  // After this turn, or the button's own name and value would not be sent.
  setTimeout(() => { for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true"); });
});

// Back from another page: what was busy is free again.
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[aria-busy]")) button.removeAttribute("aria-busy");
});

/** Say whether the server can be reached; pages that poll call this. */
export function reachable(yes) {
  document.getElementById("offline").hidden = yes;
}
addEventListener("offline", () => reachable(false));
addEventListener("online", () => reachable(true));

/** A button in each password field that shows what was typed; it is hidden again before it is sent. */
function showPasswords() {
  for (const input of document.querySelectorAll(".password > input")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet" });
    const show = (yes) => {
      input.type = yes ? "text" : "password";
      button.textContent = yes ? "Hide" : "Show";
      button.setAttribute("aria-label", `${button.textContent}: ${input.labels[0].textContent.trim()}`);
    };
    button.addEventListener("click", () => show(input.type === "password"));
    input.form.addEventListener("submit", () => show(false));
    show(false);
    input.after(button);
  }
}

/** What was typed again is compared before it is sent. */
function comparePasswords() {
  const first = document.getElementById("password"), again = document.getElementById("password_again");
  if (!first || !again) return;
  const compare = () => again.setCustomValidity(again.value && again.value !== first.value ? "This differs from the first." : "");
  first.addEventListener("input", compare);
  again.addEventListener("input", compare);
}

if (!document.querySelector("[autofocus]")) document.getElementById("wrong")?.focus();
showPasswords();
comparePasswords();
tellTimes();
setInterval(tellTimes, 10_000);
