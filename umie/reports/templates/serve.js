"use strict";
const form = document.querySelector("form"), answer = document.querySelector("pre");

async function extract() {
  const options = form.options.value.trim() ? JSON.parse(form.options.value) : {};
  const tasks = [...form.querySelectorAll("[name=task]:checked")].map(box => box.value);
  const data = new FormData();
  data.append("text", form.text.value);
  for (const file of form.image.files) data.append("image", file);
  data.append("request", JSON.stringify({tasks, ...options}));
  const response = await fetch("extract", {method: "POST", body: data});
  return JSON.stringify(await response.json(), null, 2);
}

form.addEventListener("submit", event => {
  event.preventDefault();
  answer.textContent = "...";
  extract().then(text => { answer.textContent = text; }, error => { answer.textContent = String(error); });
});
