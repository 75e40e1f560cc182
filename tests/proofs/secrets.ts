/** Every place a run leaves text in is searched for every secret value of the run. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import type { ProofCase } from '../../scripts/proof.ts';
import { byScenario } from '../../scripts/scenarios/decisions.ts';
import { runScenario } from '../../scripts/scenarios/run-scenario.ts';
import { scenarioNamed } from '../../scripts/scenarios/scenarios.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { openObjectStore } from '../../src/archive/object-store.ts';

export const sentence = 'history, logs, report, bucket, messages, process arguments: no secret value in any of them';

/** A failing release with its traceback, and a restore: together they take every road that handles secrets. */
const SCENARIOS = ['fails', 'corrupts'];
const SHORTEST = 6;

interface Place {
  readonly name: string;
  readonly texts: readonly string[];
}

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-secrets', say }, async (session) => {
    const watched = watchArguments(session.worker.server.pid);
    const histories: string[] = [];
    for (const name of SCENARIOS) {
      const result = await runScenario(scenarioNamed(name), { ...session, say, deciders: byScenario(say) });
      histories.push(...(await historyOf(session, result.workflowId)));
    }
    const commandLines = await watched.stop();
    const secrets = secretValues(session);
    const places: readonly Place[] = [
      { name: 'workflow history', texts: histories },
      { name: 'worker log', texts: [await readFile(session.worker.logFile, 'utf8')] },
      ...(await storedPlaces(session)),
      { name: 'messages to people', texts: await filesIn(session.profile.outbox) },
      { name: 'profile', texts: await filesIn(session.profile.directory) },
      { name: 'process arguments', texts: commandLines },
    ];
    say(`${secrets.length} secret values, ${places.length} places`);
    return places.flatMap((place) => judge(place, secrets));
  });

/** Nothing there, and something planted there would have been seen. */
function judge(place: Place, secrets: readonly string[]): readonly ProofCase[] {
  const size = place.texts.reduce((sum, text) => sum + text.length, 0);
  const hits = secrets.filter((secret) => place.texts.some((text) => text.includes(secret)));
  const planted = secrets.filter(
    (secret) =>
      !place.texts
        .map((text, index) => (index === 0 ? plant(text, secret) : text))
        .some((text) => text.includes(secret)),
  );
  return [
    {
      name: place.name,
      passed: hits.length === 0 && size > 0,
      detail: `${hits.length} hits in ${place.texts.length} texts, ${size} characters`,
    },
    {
      name: `${place.name}: planted`,
      passed: place.texts.length > 0 && planted.length === 0,
      detail: `${secrets.length - planted.length} of ${secrets.length} planted values found`,
    },
  ];
}

const plant = (text: string, secret: string): string => {
  const middle = Math.floor(text.length / 2);
  return `${text.slice(0, middle)}${secret}${text.slice(middle)}`;
};

/** Whole values, passwords inside URLs as written and as meant. */
function secretValues({ example }: Session): string[] {
  const values = Object.values(example.secrets).flatMap((value) => {
    const trimmed = value.trim();
    if (!URL.canParse(trimmed)) return [trimmed];
    const { password } = new URL(trimmed);
    return [trimmed, password, decodeURIComponent(password)];
  });
  return [...new Set(values)].filter((value) => value.length >= SHORTEST);
}

/** Payloads stand in a history as base64, so they are decoded too. */
async function historyOf({ client }: Session, workflowId: string): Promise<string[]> {
  const history = await client.workflow.getHandle(workflowId).fetchHistory();
  const json = historyToJSON(history);
  const decoded = [...json.matchAll(/"data":\s*"([^"]+)"/g)].map(([, data]) =>
    Buffer.from(data ?? '', 'base64').toString('utf8'),
  );
  return [json, ...decoded];
}

async function storedPlaces({ example, stack }: Session): Promise<readonly Place[]> {
  const { s3 } = stack;
  if (!s3) throw new Error('the stack runs without S3');
  const store = openObjectStore(
    { bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint, forcePathStyle: true },
    s3,
  );
  const { signal } = new AbortController();
  try {
    const objects = await store.list('', signal);
    const contents = await Promise.all(
      objects.map(async ({ key }) => Buffer.from((await store.get(key, signal)) ?? []).toString('latin1')),
    );
    const reports = contents.filter((_, index) => /report\.(json|md|html)$/.test(objects[index]?.key ?? ''));
    return [
      { name: 'report', texts: reports },
      { name: 'bucket listing', texts: objects.map(({ key }) => key) },
      { name: `objects of ${example.databases.production}`, texts: contents },
    ];
  } finally {
    store.close();
  }
}

async function filesIn(directory: string): Promise<string[]> {
  const names = await readdir(directory);
  return Promise.all(names.map((name) => readFile(path.join(directory, name), 'utf8')));
}

/** Collects the command lines of the worker and everything it starts, as anybody on the machine could see them. */
function watchArguments(root: number): { stop: () => Promise<string[]> } {
  const seen = new Set<string>();
  let running = true;
  const watching = (async () => {
    while (running) {
      for (const line of await commandLinesBelow(root)) seen.add(line);
      await delay(20);
    }
  })();
  return {
    stop: async () => {
      running = false;
      await watching;
      return [...seen];
    },
  };
}

async function commandLinesBelow(root: number): Promise<string[]> {
  const entries = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const parents = new Map<number, number>();
  for (const pid of entries) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    if (Number.isInteger(parent)) parents.set(pid, parent);
  }
  const isBelow = (pid: number): boolean => {
    for (let current: number | undefined = pid; current !== undefined && current > 1; current = parents.get(current)) {
      if (current === root) return true;
    }
    return false;
  };
  const lines = await Promise.all(
    entries.filter(isBelow).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return lines.filter((line) => line !== '').map((line) => line.replaceAll('\0', ' '));
}
