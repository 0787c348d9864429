// Export: time zones to choose from, and what is only for CSV is only asked for CSV.

const form = document.getElementById("export");
const zones = Intl.supportedValuesOf?.("timeZone") ?? [];
document.getElementById("zones").append(...zones.map((value) => Object.assign(document.createElement("option"), { value })));

function tell() {
  const isCsv = form.elements.format.value === "csv";
  for (const name of ["time_column", "time_format"]) form.elements[name].disabled = !isCsv;
}

form.addEventListener("change", tell);
// A download leaves the page where it is: its button is free again.
form.addEventListener("submit", () => setTimeout(() => {
  for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-busy");
}, 1000));
tell();
