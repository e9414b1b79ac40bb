// Models, and chains that are called as models, with the openai package: only its base URL and its
// key are this service's. Prints what it saw as JSON.
import OpenAI from "openai";

const url = process.env.PENSTOCK_URL ?? "http://127.0.0.1:8787";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.PENSTOCK_KEY ?? "dev" });
const messages = [{ role: "user" as const, content: "rivers" }];

async function whole(model: string): Promise<string> {
  // `priority` says who goes first, `prefer` until when an answer is of use.
  const headers = { priority: "u=0", prefer: "wait=30" };
  const answer = await client.chat.completions.create({ model, messages }, { headers });
  return answer.choices[0]?.message.content ?? "";
}

async function streamed(model: string): Promise<{ text: string; pieces: number }> {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  const pieces: string[] = [];
  for await (const chunk of chunks) {
    const piece = chunk.choices[0]?.delta.content;
    if (piece) pieces.push(piece);
  }
  return { text: pieces.join(""), pieces: pieces.length };
}

async function cancelled(model: string): Promise<string> {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of chunks) {
    if (chunk.choices[0]?.delta.content) chunks.controller.abort();
  }
  return chunks.controller.signal.aborted ? "cancelled" : "finished";
}

const listed = (await client.models.list()).data.map((model) => model.id);

console.log(
  JSON.stringify({
    models: listed,
    model: await whole("sandbox"),
    chain: await whole("chain:haiku"),
    chain_streamed: await streamed("chain:haiku"),
    cancelled: await cancelled("chain:haiku"),
  }),
);
