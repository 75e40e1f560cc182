/** Reads the profile's measures, and compares what they are after the upgrade with what they were before. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import type { MeasuresComparison, MeasuresEvidence } from '../contract/evidence/measures.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Measure } from '../contract/profile.ts';
import { type OpenConnection, withConnection } from '../postgres/connection.ts';
import { queryFailure } from '../postgres/database-error.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { filledHeaders } from './http-action.ts';
import { type HttpAnswer, sendRequest } from './http-request.ts';
import { valueAtPointer } from './json-pointer.ts';
import { queryAddress, readInstantValue } from './prometheus.ts';
import { readSingleValue } from './single-value.ts';

const REQUEST_LIMIT = 30_000;
const QUERY_LIMIT = 30_000;

export interface Sampling {
  /** Milliseconds between two samples of one measure. */
  readonly every: number;
  /** At most so many samples a measure; absent = as the measure says. */
  readonly samples?: number;
  readonly progress?: (details: { readonly round: number; readonly rounds: number }) => void;
}

/**
 * Samples every measure; the median counts.
 *
 * @throws StepError naming every measure that gave no usable number: `CheckFailed` where one has no data, which is not
 *   healthy; `OutsideUnavailable` where all the trouble is that something did not answer
 */
export async function takeMeasures(
  measures: readonly Measure[],
  sampling: Sampling,
  context: IntegrationContext,
): Promise<MeasuresEvidence> {
  const needed = (measure: Measure): number => Math.min(measure.samples, sampling.samples ?? measure.samples);
  const rounds = Math.max(0, ...measures.map(needed));
  const samples = new Map<string, number[]>(measures.map(({ name }) => [name, []]));
  const failures = new Map<string, StepError>();
  for (let round = 1; round <= rounds; round += 1) {
    sampling.progress?.({ round, rounds });
    const due = measures.filter((measure) => needed(measure) >= round && !failures.has(measure.name));
    await readRound(due, samples, failures, context);
    if (round < rounds) await pause(sampling.every, context.signal);
  }
  if (failures.size > 0) throw combined([...failures]);
  return {
    takenAt: new Date().toISOString(),
    values: measures.map(({ name }) => {
      const taken = samples.get(name) ?? [];
      return { name, value: median(taken), samples: taken };
    }),
  };
}

/** Waits, but not beyond the end of the step. */
export const pause = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  delay(milliseconds, undefined, { signal }).catch(() => {
    throw signal.reason;
  });

async function readRound(
  measures: readonly Measure[],
  samples: ReadonlyMap<string, number[]>,
  failures: Map<string, StepError>,
  context: IntegrationContext,
): Promise<void> {
  const read = async (measure: Measure, database: Database | undefined): Promise<void> => {
    try {
      samples.get(measure.name)?.push(usable(await readMeasure(measure, database?.client, context)));
    } catch (error) {
      if (context.signal.aborted) throw error;
      failures.set(measure.name, asStepError(error, database));
    }
  };
  const onDatabase = measures.filter(({ source }) => source.kind === 'sql' || source.kind === 'deadlocks');
  if (onDatabase.length > 0) {
    try {
      await onProduction(context, async (database) => {
        for (const measure of onDatabase) await read(measure, database);
      });
    } catch (error) {
      if (context.signal.aborted || !(error instanceof StepError)) throw error;
      for (const { name } of onDatabase) failures.set(name, error);
    }
  }
  for (const measure of measures) if (!onDatabase.includes(measure)) await read(measure, undefined);
}

function asStepError(error: unknown, database: Database | undefined): StepError {
  if (error instanceof StepError) return error;
  if (database === undefined) throw error;
  return queryFailure(error, database.target);
}

type Database = Pick<OpenConnection, 'client' | 'target'>;

/** As the backup role: it reads everything and writes nothing. */
export async function onProduction<T>(
  context: IntegrationContext,
  work: (database: Database) => Promise<T>,
): Promise<T> {
  const url = await context.secrets.resolve(context.profile.databases.production.backup);
  return withConnection(
    url,
    {
      runId: context.run.runId,
      step: context.step,
      signal: context.signal,
      statementTimeout: QUERY_LIMIT,
      // The profile's queries name tables as the service does.
      searchPath: '"$user", public',
    },
    (_client, connection) => work(connection),
  );
}

async function readMeasure(measure: Measure, client: Client | undefined, context: IntegrationContext): Promise<number> {
  const { source } = measure;
  switch (source.kind) {
    case 'sql':
      return toNumber(client === undefined ? undefined : await readSingleValue(client, source.query));
    case 'deadlocks':
      return toNumber(
        client === undefined
          ? undefined
          : await readSingleValue(
              client,
              'SELECT deadlocks FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database()',
            ),
      );
    case 'http': {
      const answer = await get(source.url, source.headers, `GET ${source.url.split(/[?#]/, 1)[0]}`, context);
      if (answer.status < 200 || answer.status > 299) {
        throw new StepError(STEP_ERRORS.unavailable, `status ${answer.status}`);
      }
      return source.pointer === undefined ? answer.milliseconds : toNumber(valueAtPointer(answer.json, source.pointer));
    }
    case 'prometheus':
      return readInstantValue(
        await get(queryAddress(source.url, source.query), source.headers, 'Prometheus', context),
        'Prometheus',
      );
  }
}

async function get(
  url: string,
  headers: Parameters<typeof filledHeaders>[0],
  label: string,
  context: IntegrationContext,
): Promise<HttpAnswer> {
  return sendRequest({
    method: 'GET',
    url,
    headers: await filledHeaders(headers, context, runValues(context.run)),
    timeout: REQUEST_LIMIT,
    signal: context.signal,
    label,
  });
}

function toNumber(value: unknown): number {
  if (typeof value === 'number') return value;
  // PostgreSQL's bigint and numeric arrive as text.
  if (typeof value === 'string' && value.trim() !== '') return Number(value);
  throw new StepError(STEP_ERRORS.checkFailed, 'no data');
}

function usable(value: number): number {
  if (Number.isFinite(value)) return value;
  throw new StepError(STEP_ERRORS.checkFailed, `the value is ${Number.isNaN(value) ? 'not a number' : 'infinite'}`);
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

function combined(failures: readonly (readonly [string, StepError])[]): StepError {
  const findings = failures.map(([name, error]) => `measure "${name}": ${error.message}`);
  const type = failures.every(([, error]) => error.type === STEP_ERRORS.unavailable)
    ? STEP_ERRORS.unavailable
    : (failures.find(([, error]) => error.type !== STEP_ERRORS.unavailable)?.[1].type ?? STEP_ERRORS.checkFailed);
  return new StepError(type, findings.join('; '), { findings });
}

/**
 * Judges each measure by its limit: at most before * ratio + absolute. What cannot be compared has exceeded: a baseline
 * that lacks the measure, a negative or infinite one.
 */
export function compareWithBaseline(
  measures: readonly Measure[],
  before: MeasuresEvidence,
  after: MeasuresEvidence,
): MeasuresComparison {
  return {
    values: measures.map(({ name, limit }) => {
      const was = valueOf(before, name);
      const is = valueOf(after, name);
      const most = was * limit.ratio + limit.absolute;
      const comparable = Number.isFinite(was) && was >= 0 && Number.isFinite(is) && Number.isFinite(most);
      return { name, before: was, after: is, limit: most, verdict: comparable && is <= most ? 'within' : 'exceeded' };
    }),
  };
}

const valueOf = (evidence: MeasuresEvidence, name: string): number =>
  evidence.values.find((value) => value.name === name)?.value ?? Number.NaN;
