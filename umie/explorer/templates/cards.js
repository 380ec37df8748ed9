// what belongs to the item under the pointer, or in focus, stays; the rest of its card fades
const show = event => {
  const card = event.target.closest(".ux-card");
  const own = event.target.closest("[data-items]");
  const numbers = own ? own.dataset.items.trim().split(/\s+/).filter(Boolean) : [];
  for (const other of element.querySelectorAll(".ux-card")) other.classList.toggle("ux-dim", other === card && numbers.length > 0);
  if (card) for (const one of card.querySelectorAll("[data-items]")) {
    one.classList.toggle("ux-on", one.dataset.items.trim().split(/\s+/).some(number => numbers.includes(number)));
  }
};
for (const name of ["mouseover", "focusin"]) element.addEventListener(name, show);
for (const name of ["mouseleave", "focusout"]) element.addEventListener(name, () => {
  for (const card of element.querySelectorAll(".ux-card")) card.classList.remove("ux-dim");
});
element.addEventListener("click", async event => {
  const button = event.target.closest(".ux-copy");
  if (!button) return;
  const text = button.closest("details").querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch { // no permission, or no https on another host: select it, so that Ctrl+C copies it
    getSelection().selectAllChildren(text);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});
