// Takes the one-time code from behind the # of the link, where no server and no log sees it.
const code = document.getElementById("code");
if (location.hash.length > 1) {
  code.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  document.getElementById("password").focus();
}
