// The form of a dataset: rows for new variables come and go without asking the server.

const rows = document.getElementById("rows");
const count = document.getElementById("row-count");
const empty = document.getElementById("empty-row");
const more = document.getElementById("more");

function removable(row) {
  const place = row.querySelector(".remove");
  if (!place) return;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "compact quiet", textContent: "Remove" });
  button.addEventListener("click", () => {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (next?.querySelector("input:not([readonly])") ?? more).focus();
  });
  place.replaceChildren(button);
}

function add() {
  const made = empty.content.cloneNode(true).querySelector("li");
  made.innerHTML = made.innerHTML.replaceAll("-NEW", `-${count.value}`);
  count.value = Number(count.value) + 1;
  rows.append(made);
  removable(made);
  made.querySelector("input").focus();
}

more.textContent = "Add a variable";
more.addEventListener("click", (event) => { event.preventDefault(); add(); });
for (const row of rows.children) removable(row);
for (const box of document.querySelectorAll(".variables input[type=checkbox]")) {
  box.addEventListener("change", () => box.closest("li").classList.toggle("unused", !box.checked));
}
