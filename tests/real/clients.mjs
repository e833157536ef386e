// The npm client of OpenAI against Pilotfish: node clients.mjs BASE_URL
import OpenAI from "openai";
import assert from "node:assert/strict";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Say hello." }];

const whole = await client.chat.completions.create({ model: "gemma", max_tokens: 8, messages });
assert.ok(whole.choices[0].message.content.length > 0);
assert.ok(whole.usage.completion_tokens > 0);

const stream = await client.chat.completions.create({ model: "gemma", max_tokens: 8, stream: true, messages });
let events = 0;
for await (const event of stream) events += event.choices.length;
assert.ok(events > 1, `${events} events`);

const text = await client.completions.create({ model: "gemma", prompt: "One, two,", max_tokens: 4 });
assert.ok(text.choices[0].text.length > 0);

const models = await client.models.list();
assert.ok(models.data.some((model) => model.id === "gemma"));

await assert.rejects(
  client.chat.completions.create({ model: "nope", messages }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);

const leaving = await client.chat.completions.create({ model: "gemma", max_tokens: 2000, stream: true, messages });
for await (const _ of leaving) break;
console.log("npm client: chat, stream, completions, models, errors, leaving: ok");
