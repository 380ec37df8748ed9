element.addEventListener("click", event => {
  const chosen = event.target.closest("[data-index]");
  if (!chosen) return;
  for (const one of element.querySelectorAll("[data-index]")) one.setAttribute("aria-pressed", one === chosen);
  trigger("click", {index: Number(chosen.dataset.index)});
});
