import type { Readable } from 'node:stream';
import { z } from 'zod';
import type { AlembicGraph } from '../contract/graph.ts';
import type { Redactor } from '../process/redactor.ts';
import { startProcess } from '../process/run.ts';
import { channelDescriptor } from '../process/spawn.ts';
import { pythonPart } from './python-part.ts';

const largestDocument = 64 * 1024 * 1024;

const revision = z.object({
  revision: z.string(),
  downRevisions: z.array(z.string()),
  dependsOn: z.array(z.string()),
  branchLabels: z.array(z.string()),
  file: z.string(),
  sha256: z.string(),
  doc: z.string(),
  transactional: z.enum(['yes', 'no', 'unknown']),
  outsideTransaction: z.enum(['nothing', 'indexes', 'anything']),
  downgrade: z.enum(['present', 'absent', 'empty', 'raises']),
  operations: z.array(z.string()),
});

const document = z.union([
  z.object({ error: z.object({ type: z.string(), message: z.string() }) }),
  z.object({
    alembic: z.string(),
    sqlalchemy: z.string(),
    python: z.string(),
    heads: z.array(z.string()),
    bases: z.array(z.string()),
    revisions: z.array(revision),
  }),
]);

/** The service's Python, Alembic or revision files could not be loaded. The message is redacted and bounded. */
export class GraphUnreadable extends Error {
  override readonly name = 'GraphUnreadable';
}

export interface ReadGraphOptions {
  /** The service's own Python: an absolute path, or a name to be found on PATH. */
  readonly python: string;
  /** The checkout: file names in the graph are relative to it. */
  readonly root: string;
  /** Alembic's working directory. */
  readonly directory: string;
  /** `alembic.ini`, absolute or relative to `directory`. */
  readonly config: string;
  /** What the revision files need to be imported. No database is reached. */
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}

/**
 * The migration graph as the service's own Alembic sees it.
 * @throws GraphUnreadable; ProcessNotStarted when the Python is not there; the signal's reason
 */
export async function readGraph(options: ReadGraphOptions): Promise<AlembicGraph> {
  const running = await startProcess({
    file: options.python,
    args: [pythonPart('graph.py'), '--config', options.config, '--root', options.root],
    directory: options.directory,
    environment: { ...options.environment, RUNBOOK_GRAPH_FD: channelDescriptor(0) },
    channels: 1,
    signal: options.signal,
    redactor: options.redactor,
    label: 'reading the migration graph',
  });
  const text = readBounded(running.channels[0] as Readable);
  const result = await running.result;
  const parsed = document.safeParse(parseJson(await text));
  const said = (result.stderrTail || result.stdoutTail).trim().slice(-600);
  if (!parsed.success) {
    const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
    throw new GraphUnreadable(`the service's Python gave no migration graph (${ending}): ${said || 'it said nothing'}`);
  }
  if ('error' in parsed.data) {
    const { type, message } = parsed.data.error;
    throw new GraphUnreadable(`Alembic cannot load the migration graph: ${type}: ${options.redactor.redact(message)}`);
  }
  return parsed.data;
}

async function readBounded(stream: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of stream) {
      size += (chunk as Uint8Array).length;
      if (size > largestDocument) throw new GraphUnreadable('the migration graph is larger than 64 MiB');
      chunks.push(chunk as Uint8Array);
    }
  } catch (error) {
    // The channel is torn down with a process that dies; what came is judged below.
    if (error instanceof GraphUnreadable) throw error;
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
