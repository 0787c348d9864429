// The board of queues, fetched again every few seconds while somebody looks.

import { reachable } from "./app.js";
import { pause } from "./api.js";

const EVERY = 2500; // milliseconds; the server asks the broker at most every second and a half
const LATE = 8000;
const board = document.getElementById("board");
const state = document.getElementById("state");

/** The same page as it is now; what has not changed stays as it is, and so does the focus. */
async function again() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(LATE) });
  if (answer.redirected || !answer.ok) {
    state.textContent = answer.redirected ? "Your session is over. Sign in again." : "The page could not be made; trying again.";
    return !answer.redirected;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = fresh.getElementById("board");
  if (next.innerHTML !== board.innerHTML) exchange(next);
  state.textContent = `As of ${new Date().toLocaleTimeString()}`;
  return true;
}

function exchange(next) {
  const held = document.activeElement?.closest("[data-queue]")?.dataset.queue;
  const left = board.querySelector(".scroll")?.scrollLeft ?? 0;
  board.replaceChildren(...next.childNodes);
  const scroll = board.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = left;
  if (held) board.querySelector(`[data-queue="${CSS.escape(held)}"] a`)?.focus({ preventScroll: true });
}

async function follow() {
  for (;;) {
    await pause(EVERY);
    if (document.hidden || String(getSelection())) continue; // nobody looks, or somebody copies
    try {
      if (!await again()) return;
      reachable(true);
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof ReferenceError) throw error;
      reachable(false);
    }
  }
}

document.getElementById("again").hidden = true;
follow();
