// Chains as assistants, with the client of LangGraph's Agent Server: runs that are waited for,
// streamed, left alone and come back to, cancelled; a thread that remembers. Prints what it saw as
// JSON.
import { Client } from "@langchain/langgraph-sdk";

const client = new Client({
  apiUrl: process.env.PENSTOCK_URL ?? "http://127.0.0.1:8787",
  apiKey: process.env.PENSTOCK_KEY ?? "dev",
  // Who goes first, for every run of this client.
  defaultHeaders: { priority: "u=0" },
});

type State = { messages: { type: string; content: string }[] };
const says = (content: string) => ({ messages: [{ role: "user", content }] });

async function streamed(): Promise<{ modes: string[]; text: string }> {
  const modes = new Set<string>();
  let text = "";
  const parts = client.runs.stream(null, "agent", {
    input: says("rivers"),
    streamMode: ["messages-tuple", "updates"],
  });
  for await (const { event, data } of parts) {
    modes.add(event);
    if (event === "messages") text += (data as unknown as [{ content: string }])[0].content;
  }
  return { modes: [...modes], text };
}

// A run of its own does not end with the connection that asked for it.
async function comeBackTo(): Promise<{ status: string; joined: string; events: string[] }> {
  const run = await client.runs.create(null, "haiku", { input: { topic: "rivers" } });
  const joined = (await client.runs.join(run.thread_id, run.run_id)) as { output: string };
  const events: string[] = [];
  for await (const { event } of client.runs.joinStream(run.thread_id, run.run_id)) events.push(event);
  const { status } = await client.runs.get(run.thread_id, run.run_id);
  return { status, joined: joined.output, events };
}

async function remembered(): Promise<{ first: number; second: number; shown: number; status: string }> {
  const { thread_id: thread } = await client.threads.create();
  const first = (await client.runs.wait(thread, "agent", { input: says("rivers") })) as State;
  const second = (await client.runs.wait(thread, "agent", { input: says("and seas") })) as State;
  const state = await client.threads.getState<State>(thread);
  const { status } = await client.threads.get(thread);
  await client.threads.delete(thread);
  return {
    first: first.messages.length,
    second: second.messages.length,
    shown: state.values.messages.length,
    status,
  };
}

async function cancelled(): Promise<string> {
  const later = { input: { topic: "rivers" }, afterSeconds: 600 };
  const run = await client.runs.create(null, "haiku", later);
  await client.runs.cancel(run.thread_id, run.run_id, true);
  return (await client.runs.get(run.thread_id, run.run_id)).status;
}

const assistants = await client.assistants.search();

console.log(
  JSON.stringify({
    assistants: assistants.map(({ name }) => name),
    whole: await client.runs.wait(null, "haiku", { input: { topic: "rivers" } }),
    streamed: await streamed(),
    come_back_to: await comeBackTo(),
    remembered: await remembered(),
    cancelled: await cancelled(),
  }),
);
