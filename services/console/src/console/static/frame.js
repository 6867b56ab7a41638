// The frame of every page: the menu on narrow windows, `g` and a letter to a page, `?` for the keys.
const menu = document.getElementById("menu");
const links = document.getElementById("navigation");
const keys = document.getElementById("keys");

if (menu) {
  menu.hidden = false;
  links.classList.add("folded");
  menu.addEventListener("click", () => {
    const folded = links.classList.toggle("folded");
    menu.setAttribute("aria-expanded", String(!folded));
  });
}

let before = "";
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !links) return;
  const place = before === "g" && links.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  before = event.key;
  if (place) location.assign(place.href);
  else if (event.key === "?") keys.showModal();
});
