// The API of this server, as the pages call it: with the session's cookie, and failures as one kind of error.

/** A refusal or failure; `status` is 0 when the server could not be reached. */
export class Failed extends Error {
  constructor(status, problem = {}, retryAfter = 0) {
    super(problem.detail || problem.title || "The server cannot be reached.");
    this.status = status;
    this.code = problem.code ?? "";
    this.errors = problem.errors ?? [];
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 409 && this.code === "still_running" || this.status === 429 || this.status >= 500;
  }
}

/** Ask; answers what JSON says, raises Failed. */
export async function api(path, { method = "GET", headers = {}, body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, headers: { Accept: "application/json", ...headers }, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed(0);
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Failed(answer.status, told, Number(answer.headers.get("Retry-After")) || 0);
  return told;
}

/** A key under which a request does its work once; also where browsers give no randomUUID (plain http). */
export function once() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Resolves after so many milliseconds, sooner when `signal` says so. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
