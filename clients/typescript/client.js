/** Recommendations from MatchLoop, and what users did with them. client.d.ts has the types and explains them. */

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;
const TRY_AGAIN = [429, 503]; // the API did not do it, and says so

export class ApiError extends Error {
  constructor(call, status, { error, message, details = [], events = null }) {
    const rules = details.map(({ field, value, rule }) => `; ${field} is ${JSON.stringify(value)}: ${rule}`).join("");
    super(`${call} was answered ${status} ${error}: ${message}${rules}`);
    this.name = "ApiError";
    Object.assign(this, { status, code: error, details, events, reason: message });
  }
}

export class NoAnswer extends Error {
  constructor(call, cause) {
    super(`${call} was not answered: ${cause?.message ?? cause}`, { cause });
    this.name = "NoAnswer";
  }
}

export class Client {
  #url;
  #headers;
  #timeoutMs;
  #retryMs;
  #fetch;

  constructor(url, { apiKey = "", timeoutMs = 5_000, retryMs = 10_000, fetch = globalThis.fetch.bind(globalThis) } = {}) {
    this.#url = String(url).replace(/\/+$/, "");
    this.#headers = { "Content-Type": "application/json", ...(apiKey && { Authorization: `Bearer ${apiKey.trim()}` }) };
    this.#timeoutMs = timeoutMs;
    this.#retryMs = retryMs;
    this.#fetch = fetch;
  }

  recommend(request) {
    return this.#post("/v1/recommendations", request, false);
  }

  sendFeedback(...events) {
    return this.#post("/v1/feedback", { events: events.map(identified) }, true);
  }

  sendEvents(...events) {
    return this.#post("/v1/events", { events: events.map(identified) }, true);
  }

  /** repeatable: doing it twice is doing it once, so that it is sent again when nobody knows whether it was done. */
  async #post(path, content, repeatable) {
    const call = `POST ${path}`;
    const body = JSON.stringify(content);
    const until = performance.now() + this.#retryMs;
    for (let longest = FIRST_PAUSE_MS; ; longest = Math.min(2 * longest, LONGEST_PAUSE_MS)) {
      const signal = AbortSignal.timeout(this.#timeoutMs);
      let response, text, failure;
      try {
        response = await this.#fetch(this.#url + path, { method: "POST", headers: this.#headers, body, signal });
        text = await response.text();
      } catch (error) {
        failure = new NoAnswer(call, error);
      }
      const asked = failure ? 0 : 1_000 * Number.parseInt(response.headers.get("Retry-After") ?? "0", 10) || 0;
      const pause = asked + Math.random() * longest;
      const again = failure ? repeatable : TRY_AGAIN.includes(response.status);
      if (!again || performance.now() + pause > until) {
        if (failure) throw failure;
        return read(call, response, text);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

/** With an id and a time of its own: however often an event is sent, it counts once. */
const identified = (event) => ({ time: Date.now(), event_id: newId(), ...event });

/** 128 random bits. crypto.randomUUID is not there on pages without TLS. */
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function read(call, { ok, status }, text) {
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    content = null;
  }
  if (ok && content !== null) return content;
  const known = content?.error ? content : { error: "unreadable", message: `It begins ${JSON.stringify(text.slice(0, 200))}.` };
  throw new ApiError(call, status, known);
}
