/**
 * Anybody who may send messages may send any number. The server ends a run at 51,200 events or 50 MB of history, and at a payload
 * of 2 MB, whatever the run still owes: what grows with messages is bounded here, and it is said where something is cut.
 */

/** Signatures that do not count. Each is looked at by an activity and recorded as a step. */
export const SIGNATURES_LOOKED_AT = 100;

/** Decisions `retry` and `continue` in one run: each does steps again, and every one of those is recorded. */
export const RETRIES = 50;

/** Repetitions of one step whose evidence a run keeps; of earlier ones it says that the history has it. */
export const EVIDENCE_KEPT = 10;

/** Far from the server's limits: what has to be put back needs some hundred events more. */
const HISTORY_EVENTS = 20_000;
const HISTORY_BYTES = 20 * 1024 * 1024;

export interface HistorySize {
  readonly historyLength: number;
  readonly historySize: number;
}

/** Why the run has to end while it can, in words; undefined as long as there is room. */
export function historyTrouble({ historyLength, historySize }: HistorySize): string | undefined {
  if (historyLength <= HISTORY_EVENTS && historySize <= HISTORY_BYTES) return undefined;
  return `the history of this run has ${historyLength} events and ${historySize} bytes, as thousands of messages make it: before the server ends the run for that, it stops and puts everything back; find out who sends them, then start a new run`;
}
