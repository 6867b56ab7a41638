// Sends the upload with a progress bar, by drop or by choice; without this file the plain form does the same.
const form = document.getElementById("upload");
const input = document.getElementById("file");
const bar = document.getElementById("sent");
const problem = document.getElementById("upload-problem");

const say = (text) => {
  problem.textContent = text;
  problem.hidden = false;
  bar.hidden = true;
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem.hidden = true;
  bar.hidden = false;
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("accept", "application/json");
  request.upload.onprogress = (sent) => { bar.value = (100 * sent.loaded) / sent.total; };
  request.onerror = () => say("The upload broke off. Check the connection and try again.");
  request.onload = () => {
    let body = {};
    try { body = JSON.parse(request.responseText); } catch { /* shown below */ }
    if (body.place) location.assign(body.place);
    else if (body.error?.code === "signed_out") location.assign("/sign-in");
    else say(body.error?.message ?? `The upload was refused (${request.status}).`);
  };
  request.send(new FormData(form));
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  form.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      form.requestSubmit();
    }
  });
}
