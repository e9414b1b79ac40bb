// Chains called with plain fetch: whole, streamed, urgent, with a deadline, cancelled.
// Prints what it saw as JSON.
import { Chain, ChainError } from "./chain.js";

const url = process.env.PENSTOCK_URL ?? "http://127.0.0.1:8787";
const key = process.env.PENSTOCK_KEY ?? "dev";

const haiku = new Chain<{ topic: string }, string>(`${url}/chains/haiku`, key);
const keywords = new Chain<{ samples?: number }, string[]>(`${url}/chains/keywords`, key);

async function streamed(): Promise<{ text: string; pieces: number }> {
  const pieces: string[] = [];
  for await (const piece of haiku.stream({ topic: "rivers" }, { urgency: 0 })) pieces.push(piece);
  return { text: pieces.join(""), pieces: pieces.length };
}

/** A person who closes the tab: the run is cancelled on the server, too. */
async function cancelled(): Promise<string> {
  const controller = new AbortController();
  const run = keywords.invoke({ samples: 5000 }, { urgency: 7, signal: controller.signal });
  setTimeout(() => controller.abort(), 50);
  return run.then(
    () => "finished",
    (error: Error) => error.name,
  );
}

async function refused(run: Promise<unknown>): Promise<{ status: number; code?: string }> {
  try {
    await run;
  } catch (error) {
    if (!(error instanceof ChainError)) throw error;
    return { status: error.status, ...(error.code ? { code: error.code } : {}) };
  }
  throw new Error("nothing was refused");
}

console.log(
  JSON.stringify({
    whole: await haiku.invoke({ topic: "rivers" }),
    streamed: await streamed(),
    cancelled: await cancelled(),
    too_late: await refused(keywords.invoke({ samples: 5000 }, { deadlineSeconds: 1 })),
    bad_input: await refused(keywords.invoke({ samples: -1 })),
  }),
);
