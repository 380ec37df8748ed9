addEventListener("keydown", event => {
  if (!(event.ctrlKey || event.metaKey) || event.key !== "Enter") return;
  event.preventDefault();
  document.getElementById("ux-extract")?.click();
});
