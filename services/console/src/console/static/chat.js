// Asks the base model, and one's own beside it, the same thing; shows the answers as they come, and sends a rating of one's own.
const form = document.getElementById("chat");
const find = (id) => document.getElementById(id);
let completion = null;
let rating = null;

const post = async (path, body) => {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-form-token": form.dataset.token },
    body: JSON.stringify(body),
  });
  if (answer.status === 401) location.assign("/sign-in");
  return answer;
};

const ask = async (model, message, pane) => {
  pane.textContent = "…";
  let text = "";
  let id = null;
  const answer = await post("/chat/say", { model, message, system: find("system").value });
  if (!answer.ok) {
    const refusal = await answer.json().catch(() => ({}));
    throw new Error(refusal.error?.message ?? `The message was refused (${answer.status}).`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      id = chunk.id;
      text += chunk.choices[0]?.delta.content ?? "";
      pane.textContent = text;
    }
  }
  if (!text.trim()) pane.textContent = "(an empty answer)";
  return id;
};

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const message = find("message").value;
  const own = find("own");
  button.disabled = true;
  if (own) find("rating").hidden = true;
  const guarded = (model, pane) => ask(model, message, pane).catch((error) => {
    pane.textContent = error.message;
    return null;
  });
  const asked = [guarded(form.dataset.base, find("base"))];
  if (own) asked.push(guarded(find("model").value, own));
  [, completion] = await Promise.all(asked);
  button.disabled = false;
  if (!own) return;
  find("rating").hidden = !completion;
  find("rated").textContent = "";
  find("correction").value = "";
  find("take-back").hidden = true;
  for (const each of document.querySelectorAll("[data-rating]")) each.setAttribute("aria-pressed", "false");
});

find("model")?.addEventListener("change", (event) => {
  location.assign(`/chat?model=${encodeURIComponent(event.target.value)}`);
});

find("message")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.ctrlKey) form.requestSubmit();
});

for (const button of document.querySelectorAll("[data-rating]")) {
  button.addEventListener("click", async () => {
    const correction = find("correction").value.trim();
    const body = { completion_id: completion, rating: button.dataset.rating, ...(correction && { correction }) };
    const answer = await post("/chat/rate", body);
    button.setAttribute("aria-pressed", String(answer.ok));
    find("rated").textContent = answer.ok ? "Thank you. It goes to the labeling inbox." : "The rating was not taken; try again.";
    rating = answer.ok ? (await answer.json()).id : null;
    find("take-back").hidden = !rating;
  });
}

find("take-back")?.addEventListener("click", async () => {
  const answer = await post("/chat/take-back", { feedback_id: rating });
  find("rated").textContent = answer.ok ? "It is taken back." : "It was not taken back; try again.";
  find("take-back").hidden = answer.ok;
  if (!answer.ok) return;
  for (const each of document.querySelectorAll("[data-rating]")) each.setAttribute("aria-pressed", "false");
});
