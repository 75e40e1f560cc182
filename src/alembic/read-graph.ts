import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { AlembicGraph } from '../contract/graph.ts';
import type { ProcessResult } from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess, startProcess } from '../process/run.ts';
import { channelDescriptor } from '../process/spawn.ts';
import { hiddenGraph, printedHeads } from './hidden-graph.ts';
import { pythonPart } from './python-part.ts';

const largestDocument = 64 * 1024 * 1024;
const tooLarge = 'the migration graph is larger than 64 MiB';

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
  downgradeTransactional: z.enum(['yes', 'no', 'unknown']),
  downgrade: z.enum(['present', 'absent', 'empty', 'raises']),
  operations: z.array(z.string()),
});

const loadError = z.object({ type: z.string(), message: z.string() });

const graphDocument = z.object({
  alembic: z.string(),
  sqlalchemy: z.string(),
  python: z.string(),
  heads: z.array(z.string()),
  bases: z.array(z.string()),
  revisions: z.array(revision),
});

const document = z.union([z.object({ error: loadError }), graphDocument]);

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
  /**
   * A command of a service that wraps Alembic, and loads its migrations: the graph is what is loaded inside it. Where our part
   * cannot be loaded there, only the heads it prints are known (`isHiddenGraph`). Absent: Alembic's own configuration counts.
   */
  readonly headsCommand?: readonly string[];
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}

/**
 * The migration graph as the service's own Alembic sees it.
 * @throws GraphUnreadable; ProcessNotStarted when the Python, or the command, is not there; the signal's reason
 */
export function readGraph(options: ReadGraphOptions): Promise<AlembicGraph> {
  return options.headsCommand === undefined
    ? readConfigured(options)
    : readInsideCommand(options, options.headsCommand);
}

async function readConfigured(options: ReadGraphOptions): Promise<AlembicGraph> {
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
    throw loadFailure(options, type, message);
  }
  return parsed.data;
}

const written = z.object({
  graphs: z.array(
    z.object({ folders: z.array(z.string()), graph: graphDocument.optional(), error: loadError.optional() }),
  ),
});

async function readInsideCommand(options: ReadGraphOptions, command: readonly string[]): Promise<AlembicGraph> {
  const folder = await mkdtemp(path.join(tmpdir(), 'runbook-graph-'));
  try {
    const { result, lines } = await runWithHook(options, command, folder);
    const graphs = await writtenGraphs(folder);
    const loaded = graphs.filter(({ graph }) => graph !== undefined && graph.revisions.length > 0);
    const [first, ...others] = distinctGraphs(loaded);
    if (others.length > 0) {
      const folders = loaded.flatMap((entry) => entry.folders.map((name) => path.relative(options.root, name)));
      throw new GraphUnreadable(
        `the command ${command[0]} loads migrations from several places (${[...new Set(folders)].toSorted().join(', ')}): give one as alembic.commands.heads that loads those of this database only`,
      );
    }
    if (first !== undefined) return first;
    const error = graphs.find((entry) => entry.error !== undefined)?.error;
    if (error !== undefined) throw loadFailure(options, error.type, error.message);
    const said = (result.stderrTail || result.stdoutTail).trim().slice(-600) || 'it said nothing';
    if (result.kind !== 'exited' || result.code !== 0) {
      const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
      throw new GraphUnreadable(`the command ${command[0]} gave no migration graph (${ending}): ${said}`);
    }
    const heads = printedHeads(lines);
    if (heads.length > 0) return hiddenGraph(heads);
    throw new GraphUnreadable(
      `the command ${command[0]} loads no migrations where we can see them, and prints no revision: ${said}`,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const hookFolder = fileURLToPath(new URL('./python/graph_hook', import.meta.url));
const mostLines = 10_000;

async function runWithHook(
  { directory, root, environment, signal, redactor }: ReadGraphOptions,
  [file = '', ...args]: readonly string[],
  folder: string,
): Promise<{ readonly result: ProcessResult; readonly lines: readonly string[] }> {
  const lines: string[] = [];
  const result = await runProcess({
    file,
    args,
    directory,
    environment: {
      ...environment,
      PYTHONPATH: [hookFolder, environment['PYTHONPATH']].filter(Boolean).join(path.delimiter),
      RUNBOOK_GRAPH_FOLDER: folder,
      RUNBOOK_GRAPH_ROOT: root,
    },
    signal,
    redactor,
    onLine: (stream, line) => {
      if (stream === 'stdout' && lines.length < mostLines) lines.push(line);
    },
    label: "the service's command for its heads",
  });
  return { result, lines };
}

/** Of every process of the command that loaded migrations. */
async function writtenGraphs(folder: string): Promise<z.infer<typeof written>['graphs']> {
  const graphs: z.infer<typeof written>['graphs'] = [];
  for (const name of (await readdir(folder)).filter((entry) => entry.endsWith('.json')).toSorted()) {
    const file = path.join(folder, name);
    if ((await stat(file)).size > largestDocument) throw new GraphUnreadable(tooLarge);
    const parsed = written.safeParse(parseJson(await readFile(file, 'utf8')));
    if (parsed.success) graphs.push(...parsed.data.graphs);
  }
  return graphs;
}

function distinctGraphs(loaded: readonly { readonly graph?: AlembicGraph | undefined }[]): readonly AlembicGraph[] {
  const distinct = new Map<string, AlembicGraph>();
  for (const { graph } of loaded) {
    if (graph === undefined) continue;
    const files = graph.revisions.map(({ revision: id, sha256 }) => `${id} ${sha256}`).toSorted();
    distinct.set(files.join('\n'), graph);
  }
  return [...distinct.values()];
}

const loadFailure = ({ redactor }: ReadGraphOptions, type: string, message: string): GraphUnreadable =>
  new GraphUnreadable(`Alembic cannot load the migration graph: ${type}: ${redactor.redact(message)}`);

async function readBounded(stream: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of stream) {
      size += (chunk as Uint8Array).length;
      if (size > largestDocument) throw new GraphUnreadable(tooLarge);
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
