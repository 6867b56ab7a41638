// Keeps the progress page current from the server's events.
const stages = document.getElementById("stages");
const find = (id) => document.getElementById(id);

const show = (state) => {
  [...stages.children].forEach((item, index) => {
    item.className = index < state.stage ? "done" : index === state.stage ? "now" : "";
    if (index === state.stage) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
  find("note").textContent = state.failed ? "Stopped" : state.note || "Working";
  find("method-name").textContent = state.method;
  find("method").hidden = !state.method;
  find("waiting").textContent = state.waiting;
  find("waiting").hidden = !state.waiting;
  find("bar").value = state.percent;
  find("losses").firstElementChild.setAttribute("points", state.chart);
  find("loss-text").textContent = state.loss_note;
  find("loss-figure").hidden = !state.chart;
  find("history").hidden = !state.events.length;
  find("events").replaceChildren(...state.events.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  stages.classList.toggle("stopped", Boolean(state.failed));
  stages.hidden = state.document;
  find("bar").hidden = Boolean(state.failed) || state.document || state.waits_for_people;
  find("meanwhile").hidden = state.over || state.waits_for_people;
  find("refused").hidden = !state.refused;
  if (state.refused) find("refused-link").href = `/models/${encodeURIComponent(state.refused)}`;
  find("failed").hidden = !state.failed;
  find("failed").textContent = state.failed;
  find("unanswered").hidden = !state.project;
  if (state.project) find("answer-link").href = `/labeling/${encodeURIComponent(state.project)}`;
  find("undecided").hidden = !state.undecided;
  if (state.undecided) find("decide-link").href = `/models/${encodeURIComponent(state.undecided)}`;
  if (state.model) {
    find("chat-link").href = `/chat?model=${encodeURIComponent(state.model)}`;
    find("model-link").href = `/models/${encodeURIComponent(state.model)}`;
    find("ready").hidden = false;
  }
};

let source = null;
let over = false;

const follow = () => {
  source = new EventSource(`/files/${stages.dataset.file}/events`);
  source.onmessage = (event) => {
    const state = JSON.parse(event.data);
    show(state);
    over = state.over;
    if (over) source.close();
  };
  source.addEventListener("displaced", () => source.close()); // pages opened later are followed; this one again when looked at
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) location.reload(); // refused: the page says why, or asks to sign in
  };
};

document.addEventListener("visibilitychange", () => {
  if (over) return;
  source.close();
  if (!document.hidden) follow();
});
follow();
