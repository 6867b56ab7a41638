// Keeps the progress page current from the server's events.
const stages = document.getElementById("stages");
const find = (id) => document.getElementById(id);
const steps = [...stages.children].filter((item) => item.id !== "first-answer");

// What is in a live region is read out when it is set, so it is set when it is new.
const say = (id, text) => {
  if (find(id).textContent !== text) find(id).textContent = text;
};

const decision = ([id, title]) => {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { className: "button", href: `/models/${encodeURIComponent(id)}` });
  const about = Object.assign(document.createElement("span"), { className: "hidden", textContent: ` about ${title.toLowerCase()}` });
  link.append("See the evidence and decide", about);
  item.append(`${title}: `, link);
  return item;
};

let undecided = null;

const show = (state) => {
  steps.forEach((item, index) => {
    item.className = index < state.stage ? "done" : index === state.stage ? "now" : "";
    if (index === state.stage) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
  say("note", state.failed ? "Stopped" : state.note || "Working");
  say("answers", state.answers);
  find("better").textContent = state.better;
  find("better").hidden = !state.better;
  find("first-answer-time").textContent = state.first_answer;
  find("first-answer").className = state.first_answer ? "done" : "";
  find("first-answer").hidden = !state.first_answer;
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
  const waiting = Object.entries(state.undecided);
  if (undecided !== JSON.stringify(waiting)) {
    undecided = JSON.stringify(waiting);
    find("undecided").replaceChildren(...waiting.map(decision));
    find("undecided").hidden = !waiting.length;
  }
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
