/** Freezes, pauses, silences and notices: told, engaged, released, each confirmed, each fit to be done twice. */
import { setTimeout as delay } from 'node:timers/promises';
import type { SwitchState } from '../contract/evidence/switches.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Action, JsonValue, Switch } from '../contract/profile.ts';
import { describeAction, runDocument } from './actions.ts';
import { pauseQueues, readQueues, resumeQueues } from './celery.ts';
import { lastLine, runCommandAction } from './command-action.ts';
import type { IntegrationContext } from './context.ts';
import { appendToFile } from './file-action.ts';
import { sendHttpAction } from './http-action.ts';
import { valueAtPointer } from './json-pointer.ts';

type ActionsMechanism = Switch['mechanism'] & { readonly kind: 'actions' };

export interface Confirmation {
  /** Milliseconds: providers apply a change a moment after they accept it. Default 15 s. */
  readonly within?: number;
}

const CONFIRM_WITHIN = 15_000;
const CONFIRM_EVERY = 500;

/** @throws StepError when whoever knows the state does not answer */
export async function readSwitch(item: Switch, context: IntegrationContext): Promise<SwitchState> {
  if (item.mechanism.kind === 'celery') return readQueues(item.mechanism, context);
  return readState(item.mechanism, context);
}

/**
 * Engages a switch and confirms it, where its state can be told. One that is engaged already is left as it is.
 *
 * @throws StepError `OutsideUnavailable` when it is not confirmed; engaging again is safe
 */
export async function engageSwitch(
  item: Switch,
  context: IntegrationContext,
  confirmation: Confirmation = {},
): Promise<SwitchState> {
  if (item.mechanism.kind === 'celery') {
    await context.requireCurrent?.();
    return pauseQueues(item.mechanism, context);
  }
  return change(item, item.mechanism, 'engaged', context, confirmation);
}

/**
 * Puts a switch back and confirms it. What was engaged before the run stays engaged.
 *
 * @param before the state found before the run engaged it
 * @throws StepError `OutsideUnavailable` when it is not confirmed; releasing again is safe
 */
export async function releaseSwitch(
  item: Switch,
  before: SwitchState,
  context: IntegrationContext,
  confirmation: Confirmation = {},
): Promise<SwitchState> {
  if (before.state === 'engaged') {
    return { state: 'engaged', detail: { note: 'was engaged before the run: left so', before: before.detail } };
  }
  if (item.mechanism.kind === 'celery') {
    await context.requireCurrent?.();
    return resumeQueues(item.mechanism, before, context);
  }
  return change(item, item.mechanism, 'released', context, confirmation);
}

async function change(
  item: Switch,
  mechanism: ActionsMechanism,
  wanted: 'engaged' | 'released',
  context: IntegrationContext,
  { within = CONFIRM_WITHIN }: Confirmation,
): Promise<SwitchState> {
  const action = wanted === 'engaged' ? mechanism.engage : mechanism.release;
  if (mechanism.state === undefined) {
    const answer = await perform(item, action, wanted, context);
    return { state: wanted, detail: { answer, confirmed: 'by the success of the action only' } };
  }
  const found = await readState(mechanism, context);
  if (found.state === wanted) return { state: wanted, detail: { ...found.detail, note: `was ${wanted} already` } };
  const answer = await perform(item, action, wanted, context);
  const deadline = performance.now() + within;
  for (;;) {
    const now = await readState(mechanism, context);
    if (now.state === wanted)
      return { state: wanted, detail: { ...now.detail, action: answer, confirmed: 'by its state' } };
    if (performance.now() > deadline) {
      const told = now.state === 'unknown' ? 'tells neither "engaged" nor "released"' : `is still ${now.state}`;
      throw new StepError(
        STEP_ERRORS.unavailable,
        `switch "${item.name}": ${describeAction(action)} was accepted (${answer}), but ${describeAction(mechanism.state)} ${told} ${within / 1000} s later`,
        { switch: item.name, wanted, found: now.state },
      );
    }
    await delay(CONFIRM_EVERY, undefined, { signal: context.signal }).catch(() => {
      throw context.signal.reason;
    });
  }
}

async function readState(mechanism: ActionsMechanism, context: IntegrationContext): Promise<SwitchState> {
  if (mechanism.state === undefined) return { state: 'unknown', detail: { note: 'the profile names no way to tell' } };
  const told = await ask(mechanism.state, mechanism.statePointer, context);
  if (told === 'engaged' || told === true) return { state: 'engaged', detail: {} };
  if (told === 'released' || told === false) return { state: 'released', detail: {} };
  const shown = context.secrets.redactor.redact(JSON.stringify(told ?? null)).slice(0, 120);
  return { state: 'unknown', detail: { answer: shown } };
}

async function ask(
  action: Action,
  pointer: string | undefined,
  context: IntegrationContext,
): Promise<JsonValue | undefined> {
  const text = await answerOf(action, context);
  if (pointer === undefined) return text.trim().replace(/^"(\w+)"$/, '$1');
  try {
    return valueAtPointer(JSON.parse(text), pointer);
  } catch {
    return undefined;
  }
}

async function answerOf(action: Action, context: IntegrationContext): Promise<string> {
  switch (action.kind) {
    case 'command':
      return (await runCommandAction(action, `${JSON.stringify(runDocument(context.run))}\n`, context)).output;
    case 'http':
      return (await sendHttpAction(action, undefined, context)).text;
    case 'file':
      return '';
  }
}

/**
 * The key is that of the step, so a pooler that is paused once more for a second restore is another request than the first time.
 *
 * @returns what the other side said, redacted and short
 */
async function perform(
  item: Switch,
  action: Action,
  wanted: 'engaged' | 'released',
  context: IntegrationContext,
): Promise<string> {
  const key = `${context.run.runId}/${context.step}/${item.name}/${wanted}`;
  const document = { key, switch: item.name, kind: item.kind, wanted, run: runDocument(context.run) };
  await context.requireCurrent?.();
  switch (action.kind) {
    case 'command': {
      const { output } = await runCommandAction(action, `${JSON.stringify(document)}\n`, context);
      return output === '' ? 'exit code 0' : lastLine(output);
    }
    case 'http': {
      // A change that comes back to an earlier state is not the same request again: no idempotency key.
      const facts = action.method === 'DELETE' ? undefined : document;
      return `status ${(await sendHttpAction(action, facts, context)).status}`;
    }
    case 'file':
      return appendToFile(
        action,
        {
          key,
          title: `${item.name}: ${wanted}`,
          text: `Release ${context.run.releaseTag} of ${context.run.service}.`,
          document,
        },
        context,
      );
  }
}
