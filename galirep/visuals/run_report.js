"use strict";
const charts = JSON.parse(document.getElementById("data").textContent).charts;
const number = value => Number(value.toPrecision(4)).toString();

document.querySelectorAll(".charts figure").forEach((figure, index) => {
  const svg = figure.querySelector("svg"), output = figure.querySelector("output"), pointer = svg.querySelector(".pointer");
  const {left, right, top, bottom} = Object.fromEntries(Object.entries(pointer.dataset).map(([key, value]) => [key, +value]));
  const {x, series} = charts[index];
  const steps = [...new Set(series.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  let at = -1;

  const show = step => {
    const place = left + (step - x[0]) / (x[1] - x[0]) * (right - left);
    pointer.setAttribute("d", `M${place.toFixed(1)} ${top}V${bottom}`);
    const values = series.flatMap(line => {
      const before = line.points.filter(point => point[0] <= step).pop();
      return before ? [(series.length > 1 ? line.name + " " : "") + number(before[1])] : [];
    });
    output.textContent = `step ${step.toLocaleString("en")}: ${values.join(" · ")}`;
  };
  const clear = () => { at = -1; pointer.setAttribute("d", ""); output.textContent = ""; };

  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const place = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = x[0] + (place - left) / (right - left) * (x[1] - x[0]);
    at = steps.reduce((best, step, i) => Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best, 0);
    show(steps[at]);
  });
  svg.addEventListener("pointerleave", clear);
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    at = at < 0 ? steps.length - 1 : Math.min(steps.length - 1, Math.max(0, at + move));
    show(steps[at]);
  });
  svg.addEventListener("blur", clear);
});
