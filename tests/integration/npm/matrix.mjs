// One package's client in every situation of a call. Which one: PENSTOCK_CLIENT. Prints, as JSON,
// what it saw. Each client is three functions: `plain`, `pieces` (a stream) and `tool` (the name
// of the tool that was called); nothing but its base URL and key point at us.
import { z } from "zod";

const { PENSTOCK_URL: url, PENSTOCK_KEY: key, PENSTOCK_SANDBOX: sandbox, PENSTOCK_CLIENT: name } = process.env;
const prompt = "Name three rivers in 30 words.";
const messages = [{ role: "user", content: prompt }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const schema = z.object({ city: z.string() });
const weather = { name: "weather", description: "The weather of a city." };

async function openai(headers) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, defaultHeaders: headers });
  const create = (body, options) => client.chat.completions.create({ messages, ...body }, options);
  return {
    plain: async (model, signal) => (await create({ model }, { signal })).choices[0].message.content,
    async *pieces(model, signal) {
      for await (const { choices } of await create({ model, stream: true }, { signal })) {
        if (choices[0]?.delta?.content) yield choices[0].delta.content;
      }
    },
    tool: async (model) =>
      (await create({ model, tools: [{ type: "function", function: { ...weather, parameters } }] }))
        .choices[0].message.tool_calls[0].function.name,
  };
}

async function anthropic(headers) {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, defaultHeaders: headers });
  const create = (body, options) => client.messages.create({ messages, max_tokens: 200, ...body }, options);
  return {
    plain: async (model, signal) => (await create({ model }, { signal })).content[0].text,
    async *pieces(model, signal) {
      for await (const event of await create({ model, stream: true }, { signal })) {
        if (event.type === "content_block_delta") yield event.delta.text;
      }
    },
    tool: async (model) =>
      (await create({ model, tools: [{ ...weather, input_schema: parameters }] }))
        .content.find(({ type }) => type === "tool_use").name,
  };
}

async function langchain(make) {
  const { tool } = await import("@langchain/core/tools");
  const asked = tool(() => "", { ...weather, schema });
  return {
    plain: async (model, signal) => (await make(model).invoke(prompt, { signal })).content,
    async *pieces(model, signal) {
      for await (const { content } of await make(model).stream(prompt, { signal })) {
        const text = typeof content === "string" ? content : content.map((one) => one.text ?? "").join("");
        if (text) yield text;
      }
    },
    tool: async (model) => (await make(model).bindTools([asked]).invoke(prompt)).tool_calls[0].name,
  };
}

async function langchainOpenai(headers) {
  const { ChatOpenAI } = await import("@langchain/openai");
  const configuration = { baseURL: `${url}/v1`, defaultHeaders: headers };
  return langchain((model) => new ChatOpenAI({ model, apiKey: key, maxRetries: 0, configuration }));
}

async function langchainAnthropic(headers) {
  const { ChatAnthropic } = await import("@langchain/anthropic");
  const settings = { apiKey: key, anthropicApiUrl: url, maxRetries: 0, maxTokens: 200, clientOptions: { defaultHeaders: headers } };
  return langchain((model) => new ChatAnthropic({ model, ...settings }));
}

async function vercel(provider) {
  const { generateText, streamText, tool } = await import("ai");
  const settings = (model) => ({ model: provider(model), prompt, maxRetries: 0, maxOutputTokens: 200 });
  return {
    plain: async (model, abortSignal) => (await generateText({ ...settings(model), abortSignal })).text,
    async *pieces(model, abortSignal) {
      let failure = null;
      const { textStream } = streamText({
        ...settings(model),
        abortSignal,
        onError: ({ error }) => { failure = error; },
        onAbort: () => { failure = new Error("aborted"); },
      });
      yield* textStream;
      if (failure) throw failure;
    },
    tool: async (model) =>
      (await generateText({ ...settings(model), tools: { weather: tool({ description: weather.description, inputSchema: schema }) } }))
        .toolCalls[0].toolName,
  };
}

async function vercelOpenai(headers) {
  const { createOpenAI } = await import("@ai-sdk/openai");
  return vercel(createOpenAI({ baseURL: `${url}/v1`, apiKey: key, headers }).chat);
}

async function vercelAnthropic(headers) {
  const { createAnthropic } = await import("@ai-sdk/anthropic");
  return vercel(createAnthropic({ baseURL: `${url}/v1`, apiKey: key, headers }));
}

const connect = { openai, anthropic, langchainOpenai, langchainAnthropic, vercelOpenai, vercelAnthropic }[name];
const client = await connect({});
const impatient = await connect({ prefer: "wait=1" });

// How a call ended: with a text, or with an error and its status where it has one.
async function ending(call) {
  try {
    return { text: await call() };
  } catch (error) {
    const { status, statusCode, lc_error_code: code } = error;
    return { error: error.name, status: status ?? statusCode ?? error.cause?.status ?? null, code: code ?? null };
  }
}

async function all(pieces) {
  const seen = [];
  for await (const piece of pieces) seen.push(piece);
  return seen.join("");
}

async function cancelled(model, call, after) {
  const controller = new AbortController();
  const began = Date.now();
  if (after) setTimeout(() => controller.abort(), after);
  const end = await ending(() => call(model, controller));
  return { ...end, ms: Date.now() - began };
}

async function stopAfterThree(model, controller) {
  let count = 0;
  for await (const _ of client.pieces(model, controller.signal)) {
    count += 1;
    if (count === 3) controller.abort();
  }
  return `${count} pieces`;
}

async function failing(fault, call) {
  await fetch(`${sandbox}/faults`, { method: "POST", body: JSON.stringify({ faults: [fault] }) });
  return ending(call);
}

async function pieceCount(model) {
  const seen = [];
  const began = Date.now();
  for await (const piece of client.pieces(model)) seen.push(piece);
  return { text: seen.join(""), pieces: seen.length, ms: Date.now() - began };
}

async function waited() {
  await client.plain("tight");
  const began = Date.now();
  const text = await client.plain("tight");
  return { text, ms: Date.now() - began };
}

// One of both waits for seconds, and reads of its wait, while the rest goes on.
const told = Promise.all([pieceCount("rare"), pieceCount("rare")]);
told.catch(() => {});
const seen = {
  plain: await client.plain("free"),
  stream: await pieceCount("free"),
  tool: await client.tool("free"),
  waited: await waited(),
  // The bucket of "tight" is empty now: two seconds to wait.
  refused: await ending(() => impatient.plain("tight")),
  cancelledWaiting: await cancelled("tight", (model, { signal }) => client.plain(model, signal), 150),
  cancelledStreaming: await cancelled("paced", stopAfterThree, 0),
  failing: {},
};
for (const fault of ["500", "529", "reset-before", "401", "400-context", "html", "empty"]) {
  seen.failing[fault] = await failing(fault, () => client.plain("free"));
}
for (const fault of ["reset-mid-stream", "error-mid-stream", "truncated-json"]) {
  seen.failing[fault] = await failing(fault, () => all(client.pieces("free")));
}
seen.told = await told;
console.log(JSON.stringify(seen));
process.exit(0);
