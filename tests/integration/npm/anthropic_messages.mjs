// The @anthropic-ai/sdk package as an application uses it: nothing but its base URL and key point at us.
// Prints, as JSON, what it saw: an answer, the same as a stream, and two refusals.
import Anthropic, { APIError } from "@anthropic-ai/sdk";

const { PENSTOCK_URL, PENSTOCK_KEY, PENSTOCK_CLAUDE: model } = process.env;
const client = new Anthropic({ baseURL: PENSTOCK_URL, apiKey: PENSTOCK_KEY });
const body = { model, max_tokens: 200, messages: [{ role: "user", content: "Name three rivers." }] };

function summary(message) {
  const text = message.content.map((block) => block.text ?? "").join("");
  return { text, ending: message.stop_reason, usage: message.usage };
}

async function plain() {
  const { data, request_id: request } = await client.messages.create(body).withResponse();
  return { ...summary(data), request };
}

async function stream() {
  const events = client.messages.stream(body);
  let pieces = 0;
  events.on("text", () => (pieces += 1));
  return { ...summary(await events.finalMessage()), pieces };
}

async function refusal(overrides, changes) {
  try {
    await new Anthropic({ baseURL: PENSTOCK_URL, apiKey: PENSTOCK_KEY, maxRetries: 0, ...overrides })
      .messages.create({ ...body, ...changes });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { name: error.constructor.name, status: error.status, type: error.type, message: error.message };
  }
  return null;
}

console.log(JSON.stringify({
  plain: await plain(),
  stream: await stream(),
  unknown_model: await refusal({}, { model: "no-such-model" }),
  wrong_key: await refusal({ apiKey: "not-the-key" }, {}),
}));
