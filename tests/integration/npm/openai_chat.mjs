// The openai package as an application uses it: nothing but its base URL and key point at us.
// Prints, as JSON, what it saw: an answer, the same as a stream, and two refusals.
import OpenAI, { APIError } from "openai";

const { PENSTOCK_URL, PENSTOCK_KEY, PENSTOCK_GPT: model } = process.env;
const client = new OpenAI({ baseURL: `${PENSTOCK_URL}/v1`, apiKey: PENSTOCK_KEY });
const messages = [{ role: "user", content: "Name three rivers." }];

async function plain() {
  const { data, response } = await client.chat.completions
    .create({ model, messages })
    .withResponse();
  const { message, finish_reason: ending } = data.choices[0];
  return { text: message.content, ending, usage: data.usage, request: response.headers.get("x-request-id") };
}

async function stream(options) {
  const chunks = await client.chat.completions.create({ model, messages, stream: true, ...options });
  const seen = { text: "", pieces: 0, ending: null, usage: null };
  for await (const { choices, usage } of chunks) {
    const piece = choices[0]?.delta?.content ?? "";
    seen.text += piece;
    seen.pieces += piece ? 1 : 0;
    seen.ending ??= choices[0]?.finish_reason ?? null;
    seen.usage ??= usage ?? null;
  }
  return seen;
}

async function refusal(overrides, body) {
  try {
    await new OpenAI({ baseURL: client.baseURL, apiKey: PENSTOCK_KEY, maxRetries: 0, ...overrides })
      .chat.completions.create({ model, messages, ...body });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { name: error.constructor.name, status: error.status, message: error.message };
  }
  return null;
}

console.log(JSON.stringify({
  plain: await plain(),
  stream: await stream({}),
  stream_with_usage: await stream({ stream_options: { include_usage: true } }),
  unknown_model: await refusal({}, { model: "no-such-model" }),
  wrong_key: await refusal({ apiKey: "not-the-key" }, {}),
}));
