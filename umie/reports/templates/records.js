for (const card of document.querySelectorAll("article")) {
  // what belongs to the item under the pointer, or in focus, stays; the rest fades
  const show = event => {
    const own = event.target.closest("[data-items]");
    const numbers = own ? own.dataset.items.trim().split(/\s+/).filter(Boolean) : [];
    card.classList.toggle("dim", numbers.length > 0);
    for (const one of card.querySelectorAll("[data-items]")) {
      one.classList.toggle("on", one.dataset.items.trim().split(/\s+/).some(number => numbers.includes(number)));
    }
  };
  for (const name of ["mouseover", "focusin", "click"]) card.addEventListener(name, show);
  for (const name of ["mouseleave", "focusout"]) card.addEventListener(name, () => card.classList.remove("dim"));
  for (const figure of card.querySelectorAll("figure.audio")) {
    const sound = figure.querySelector("audio");
    let end = Infinity;
    if (!sound) continue;
    figure.addEventListener("click", event => {
      const segment = event.target.closest("[data-from]");
      if (!segment) return;
      sound.currentTime = Number(segment.dataset.from);
      end = Number(segment.dataset.to);
      sound.play();
    });
    sound.addEventListener("timeupdate", () => { if (sound.currentTime >= end) { sound.pause(); end = Infinity; } });
  }
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
