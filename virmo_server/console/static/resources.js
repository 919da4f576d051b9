// The sliders of a device: number and slider of a field move together, sums show at once, and nothing is refreshed while
// something is moved but not applied.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const numbers = (field) => [...document.querySelectorAll(`#shares input[data-field="${field}"]`)];
  const sliderOf = (number) => document.querySelector(`#shares input[data-for="${number.id}"]`);
  const isMoved = (number) => number.value !== number.defaultValue;
  const format = (value, unit) => (unit === "MiB" && value >= 1024 ? `${(value / 1024).toFixed(1)} GiB` : `${value} ${unit}`);

  function showSum(box) {
    const { sum: field, unit } = box.dataset;
    const total = Number(box.dataset.total);
    const used = numbers(field).reduce((sum, number) => sum + Number(number.value), 0);
    const svg = box.querySelector("svg");
    const scale = 100 / Math.max(total, used, 1);
    let from = 0;
    svg.replaceChildren(
      ...numbers(field).map((number) => {
        const part = document.createElementNS(SVG, "rect");
        const width = Number(number.value) * scale;
        for (const [name, value] of Object.entries({ x: from, y: 0, width, height: 8 })) part.setAttribute(name, value);
        part.setAttribute("class", `c${number.dataset.row % 6}`);
        from += width;
        return part;
      }),
    );
    box.classList.toggle("over", used > total);
    const rest = total - used;
    const words = rest >= 0 ? `${format(rest, unit)} left` : `${format(-rest, unit)} too much`;
    box.querySelector("output").textContent = `${format(used, unit)} of ${format(total, unit)}, ${words}`;
  }

  function showAll() {
    const shares = document.querySelector("#shares");
    for (const box of document.querySelectorAll(".sum")) showSum(box);
    const moved = [...document.querySelectorAll("#shares input[data-field]")].filter(isMoved);
    for (const number of document.querySelectorAll("#shares input[data-field]"))
      number.closest("td").classList.toggle("moved", isMoved(number));
    if (moved.length) shares.dataset.dirty = "1";
    else delete shares.dataset.dirty;
    const undo = document.querySelector("#undo");
    if (!undo) return;
    undo.disabled = moved.length === 0;
    const vms = new Set(moved.map((number) => number.dataset.row)).size;
    document.querySelector("#moved").textContent = moved.length ? `${moved.length} changes for ${vms} VMs, not applied yet` : "";
  }

  document.body.addEventListener("input", (event) => {
    const input = event.target;
    if (!input.closest("#shares")) return;
    if (input.dataset.for) document.getElementById(input.dataset.for).value = input.value;
    else if (sliderOf(input)) sliderOf(input).value = input.value;
    showAll();
  });
  document.body.addEventListener("click", (event) => {
    if (event.target.id !== "undo") return;
    document.querySelector("#shares-form").reset();
    showAll();
  });
  document.body.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt.id !== "shares-form" || !event.detail.successful) return;
    // What was moved is on its way: not to be applied a second time. The next refresh shows what the device has.
    for (const number of document.querySelectorAll("#shares input[data-field]")) {
      number.defaultValue = number.value;
      number.closest("td").querySelector('[name^="was."]').value = number.value;
      if (sliderOf(number)) sliderOf(number).defaultValue = number.value;
    }
    showAll();
  });
  document.body.addEventListener("htmx:afterSettle", (event) => event.detail.elt.id === "shares" && showAll());
  showAll();
})();
