// A chain of a Penstock service, called with nothing but fetch.
//
// Copy this file into a service of yours: it is all that is needed. The protocol is LangServe's:
// POST /chains/{name}/invoke answers with JSON, POST /chains/{name}/stream with server-sent events.

/** How much a run matters, and until when its answer is of use. */
export interface RunOptions {
  /** Who goes first: 0 to 2 interactive, 3 and 4 standard, 5 to 7 batch (RFC 9218). */
  urgency?: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7;
  /** Whole seconds after which the run is cancelled on the server, with status 504. */
  deadlineSeconds?: number;
  /** Cancels the run on the server as soon as it is aborted here. */
  signal?: AbortSignal;
}

/** What the service said instead of an answer: `retryAfterSeconds` is there where trying helps. */
export class ChainError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code?: string,
    readonly retryAfterSeconds?: number,
  ) {
    super(message);
    this.name = "ChainError";
  }
}

export class Chain<Input, Output> {
  constructor(
    private readonly url: string,
    private readonly key: string,
  ) {}

  /** The whole output of one run. */
  async invoke(input: Input, options: RunOptions = {}): Promise<Output> {
    const answer = await this.post("invoke", input, options);
    const { output } = (await answer.json()) as { output: Output };
    return output;
  }

  /** The output of one run, piece by piece. Leaving the loop cancels the run. */
  async *stream(input: Input, options: RunOptions = {}): AsyncGenerator<Output> {
    const answer = await this.post("stream", input, options);
    for await (const { event, data } of serverSentEvents(answer.body!)) {
      if (event === "error") {
        const error = JSON.parse(data) as { status_code: number; message: string; code?: string };
        throw new ChainError(error.status_code, error.message, error.code);
      }
      if (event === "data") yield JSON.parse(data) as Output;
    }
  }

  private async post(endpoint: string, input: Input, options: RunOptions): Promise<Response> {
    const headers: Record<string, string> = {
      authorization: `Bearer ${this.key}`,
      "content-type": "application/json",
    };
    if (options.urgency !== undefined) headers.priority = `u=${options.urgency}`;
    if (options.deadlineSeconds !== undefined) headers.prefer = `wait=${options.deadlineSeconds}`;
    const answer = await fetch(`${this.url}/${endpoint}`, {
      method: "POST",
      headers,
      body: JSON.stringify({ input }),
      ...(options.signal ? { signal: options.signal } : {}),
    });
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

async function refusal(answer: Response): Promise<ChainError> {
  // RFC 9457: `detail` says what is wrong and what to do; for bad input it is a list.
  const problem = (await answer.json().catch(() => ({}))) as { detail?: unknown; type?: string };
  const detail = typeof problem.detail === "string" ? problem.detail : JSON.stringify(problem.detail);
  const seconds = answer.headers.get("retry-after");
  return new ChainError(
    answer.status,
    detail ?? answer.statusText,
    problem.type?.split(":").pop(),
    seconds === null ? undefined : Number(seconds),
  );
}

async function* serverSentEvents(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<{ event: string; data: string }> {
  const decoder = new TextDecoder();
  let held = "";
  for await (const bytes of body) {
    held += decoder.decode(bytes, { stream: true });
    let end: number;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const lines = held.slice(0, end).split("\n");
      held = held.slice(end + 2);
      // Lines that begin with a colon are comments: the service says so that it is still there.
      const field = (name: string) =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      if (lines.some((line) => !line.startsWith(":"))) {
        yield { event: field("event"), data: field("data") };
      }
    }
  }
}
