"use strict";
document.documentElement.classList.add("js");
const posters = JSON.parse(document.getElementById("posters").textContent);
const source = (item) => Object.hasOwn(posters, item) ? "data:image/jpeg;base64," + posters[item] : null;

for (const image of document.querySelectorAll("img[data-item]")) {
  const data = source(image.dataset.item);
  if (data) { image.src = data; image.classList.add("there"); }
}

// Panels of which one is seen at a time, with a button for each.
for (const choice of document.querySelectorAll(".choice")) {
  const panels = [...choice.children].filter((child) => child.dataset.panel !== undefined);
  if (panels.length < 2) { for (const panel of panels) panel.classList.add("on"); continue; }
  const bar = document.createElement("div");
  bar.className = "buttons";
  const show = (chosen) => panels.forEach((panel, index) => {
    panel.classList.toggle("on", index === chosen);
    bar.children[index].setAttribute("aria-pressed", index === chosen);
  });
  panels.forEach((panel, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = panel.dataset.panel;
    button.addEventListener("click", () => show(index));
    bar.append(button);
  });
  choice.insertBefore(bar, panels[0]);
  show(0);
}

// What a mark stands for, on hover or touch.
const tip = document.getElementById("tip");
const move = (event) => {
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  if (!mark) { tip.style.display = "none"; return; }
  tip.replaceChildren();
  const data = mark.dataset.item !== undefined ? source(mark.dataset.item) : null;
  if (data) { const image = document.createElement("img"); image.src = data; image.alt = ""; tip.append(image); }
  tip.append(mark.dataset.tip);
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(event.clientX + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (event.clientY + 16 + box.height > innerHeight ? Math.max(6, event.clientY - box.height - 12) : event.clientY + 16) + "px";
};
document.addEventListener("pointermove", move);
document.addEventListener("pointerdown", move);
document.addEventListener("scroll", () => { tip.style.display = "none"; }, true);
document.documentElement.dataset.drawn = "true";
