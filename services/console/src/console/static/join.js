// Takes the one-time code from behind the # of the link, where no server and no log sees it.
const code = document.getElementById("code");
const whose = document.getElementById("whose");

// Says whose account it is before a password is chosen: who was sent a stranger's link must see that.
const look = async () => {
  const answer = await fetch("/join/look", { method: "POST", body: new URLSearchParams({ code: code.value }) });
  const found = await answer.json();
  document.getElementById("username").value = found.email ?? "";
  whose.textContent = found.email ? `${found.email}, ${found.role.replace("_", " ")} of ${found.name}` : found.error.message;
  whose.hidden = false;
};

code.addEventListener("change", look);
if (location.hash.length > 1) {
  code.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  document.getElementById("password").focus();
  look();
}
