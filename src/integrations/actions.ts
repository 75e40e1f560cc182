/** Announcements, tickets, notices: one message carried out by an action of the profile. */
import type { Announcement } from '../contract/evidence/actions.ts';
import type { Action, JsonValue } from '../contract/profile.ts';
import { lastLine, runCommandAction } from './command-action.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { appendToFile } from './file-action.ts';
import { describeAddress, sendHttpAction } from './http-action.ts';

export interface Delivery {
  /** Where to: `command ./notify`, `POST https://...`, `file announcements.md`. */
  readonly to: string;
  /** What the other side said, redacted and short. */
  readonly answer: string;
}

export function describeAction(action: Action): string {
  switch (action.kind) {
    case 'command':
      return `command ${action.command[0] ?? ''}`;
    case 'http':
      return `${action.method} ${describeAddress(action.url)}`;
    case 'file':
      return `file ${action.path}`;
  }
}

/**
 * Delivers one message. Programs get it as one JSON object on standard input, HTTP receivers as the body unless the action
 * has its own: `{ "key", "kind", "title", "text", "facts", "run" }`, `text` being Markdown.
 *
 * @param key the same for every attempt at the same message: `Idempotency-Key` for HTTP, `key` in the JSON for programs
 * @throws StepError; see `runCommandAction`, `sendHttpAction`, `appendToFile`
 */
export async function deliver(
  action: Action,
  message: Announcement,
  key: string,
  context: IntegrationContext,
): Promise<Delivery> {
  const document = messageDocument(message, key, context);
  const values = { kind: message.kind, title: message.title, text: message.text };
  const to = describeAction(action);
  switch (action.kind) {
    case 'command': {
      const { output } = await runCommandAction(action, `${JSON.stringify(document)}\n`, context, values);
      return { to, answer: output === '' ? 'exit code 0' : `exit code 0: ${lastLine(output)}` };
    }
    case 'http': {
      const answer = await sendHttpAction(action, document, context, { ...values, idempotencyKey: key });
      return { to, answer: `status ${answer.status}` };
    }
    case 'file': {
      const answer = await appendToFile(action, { key, title: message.title, text: message.text, document }, context);
      return { to, answer };
    }
  }
}

function messageDocument(
  message: Announcement,
  key: string,
  { run }: IntegrationContext,
): { readonly [key: string]: JsonValue } {
  return {
    key,
    kind: message.kind,
    title: message.title,
    text: message.text,
    facts: message.facts,
    run: runDocument(run),
  };
}

/** What every program learns about the run: only what is known by now. */
export const runDocument = (run: IntegrationContext['run']): { readonly [key: string]: JsonValue } =>
  Object.fromEntries(
    Object.entries(runValues(run)).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
