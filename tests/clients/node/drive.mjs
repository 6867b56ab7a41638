// Drives every resource that exists through the unmodified Node SDK: an address and a key come from the environment.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ maxRetries: 2, timeout: 60_000 });
const model = "tiny-test";
const messages = [{ role: "user", content: "hello there" }];

async function until(ask, what, seconds = 180) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await ask();
    if (found) return found;
    assert.ok(Date.now() < end, `${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const steps = {
  async models() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    assert.ok(ids.includes(model));
  },
  async chat() {
    const whole = await client.chat.completions.create({ model, messages, max_tokens: 8, temperature: 0 });
    assert.ok(whole.usage.completion_tokens > 0);
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 8, temperature: 0, stream: true, stream_options: { include_usage: true },
    });
    let text = "", usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(usage, whole.usage);
    await assert.rejects(
      client.chat.completions.create({ model, messages, tools: [{ type: "function", function: { name: "f" } }] }),
      (error) => error instanceof OpenAI.BadRequestError && error.param.startsWith("tools"),
    );
  },
  async stored_chats() {
    const made = await client.chat.completions.create({ model, messages, max_tokens: 2, store: true, metadata: { a: "1" } });
    await until(() => client.chat.completions.retrieve(made.id).catch(() => null), "stored chat", 30);
    const changed = await client.chat.completions.update(made.id, { metadata: { a: "2" } });
    assert.deepEqual(changed.metadata, { a: "2" });
    const found = [];
    for await (const one of client.chat.completions.list({ metadata: { a: "2" } })) found.push(one.id);
    assert.deepEqual(found, [made.id]);
    assert.ok((await client.chat.completions.delete(made.id)).deleted);
  },
  async completions() {
    const answer = await client.completions.create({ model, prompt: "once upon", max_tokens: 4, logprobs: 1 });
    assert.equal(answer.choices[0].logprobs.tokens.length, answer.usage.completion_tokens);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "multilingual-e5-small", input: ["a bicycle", "自転車"] });
    assert.equal(answer.data.length, 2);
    assert.ok(Math.abs(Math.hypot(...answer.data[0].embedding) - 1) < 1e-3);
  },
  async fine_tuning() {
    const rows = Array.from({ length: 40 }, (_, number) =>
      JSON.stringify({ prompt: `where is bike ${number}?`, completion: number % 2 ? "north" : "south" }));
    const file = await client.files.create({ file: await toFile(Buffer.from(rows.join("\n")), "rows.jsonl"), purpose: "fine-tune" });
    const job = await client.fineTuning.jobs.create({ model, training_file: file.id, seed: 1 });
    const ended = await until(async () => {
      const now = await client.fineTuning.jobs.retrieve(job.id);
      return ["succeeded", "failed", "cancelled"].includes(now.status) || now.stage === "awaiting_approval" ? now : null;
    }, "fine-tune");
    const events = [];
    for await (const event of client.fineTuning.jobs.listEvents(job.id)) events.push(event.message);
    assert.ok(events.length > 1);
    if (ended.status !== "succeeded") return;
    const answer = await client.chat.completions.create({ model: ended.fine_tuned_model, messages, max_tokens: 2 });
    assert.equal(answer.model, ended.fine_tuned_model);
  },
  async vector_stores() {
    const page = "# Refunds\n\nRefunds take five working days.\n";
    const file = await client.files.create({ file: await toFile(Buffer.from(page), "help.md"), purpose: "assistants" });
    const store = await client.vectorStores.create({ name: "Help" });
    const kept = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id, attributes: { page: 1 } });
    assert.equal(kept.status, "completed");
    const changed = await client.vectorStores.files.update(file.id, { vector_store_id: store.id, attributes: { page: 2 } });
    assert.deepEqual(changed.attributes, { page: 2 });
    const text = [];
    for await (const part of client.vectorStores.files.content(file.id, { vector_store_id: store.id })) text.push(part.text);
    assert.ok(text.join("").includes("five working days"));
    const found = await client.vectorStores.search(store.id, { query: "How long does a refund take?" });
    assert.equal(found.data[0].file_id, file.id);
    assert.ok((await client.vectorStores.delete(store.id)).deleted);
    assert.ok((await client.files.delete(file.id)).deleted);
  },
};

let failed = 0;
for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.stack}`);
  }
}
process.exit(failed ? 1 : 0);
