import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { pythonPart } from '../../src/alembic/python-part.ts';
import { upgrade } from '../../src/alembic/upgrade.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { requireSuccess, runProcess } from '../../src/process/run.ts';
import type { Revision } from '../fixtures/alembic/service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { recorded, recording, reportedService, succeeded } from './alembic-service.ts';

const { python } = useStack().venv;
const timeouts = { lock: 3_000, concurrentLock: 20_000, statement: 60_000, concurrentStatement: 0 };
const revisions: readonly Revision[] = [
  { id: 'r1', upgrade: `${recording}\n${recorded('r1')}` },
  { id: 'r2', down: '"r1"', upgrade: 'op.execute("CREATE TABLE two (id int)")' },
];

/** A console script in Python, as a package installs it, and a shell script that calls it. */
async function wrappedService() {
  const service = await reportedService(revisions);
  await mkdir(join(service.root, 'bin'));
  const write = async (name: string, text: string): Promise<string> => {
    const file = join(service.root, 'bin', name);
    await writeFile(file, text);
    await chmod(file, 0o755);
    return file;
  };
  const manage = await write(
    'service-manage',
    `#!${python}
import sys
from alembic import command
from alembic.config import Config
command.upgrade(Config("alembic.ini"), sys.argv[1])
`,
  );
  const script = await write('migrate.sh', `#!/bin/sh\nset -e\necho migrating\n${manage} "$1"\necho done\n`);
  const boundaries: string[] = [];
  const options = {
    ...service.options,
    target: 'r2',
    timeouts,
    atBoundary: async ({ revision }: { readonly revision: string }): Promise<void> => {
      boundaries.push(revision);
    },
  };
  return { ...service, options, manage, script, boundaries };
}

test.each(['manage', 'script'] as const)('our part comes into the Python of a wrapper: %s', async (which) => {
  const { options, of, seen, boundaries, ...commands } = await wrappedService();
  const temporary = await temporaryDirectory('wrapper');
  vi.stubEnv('TMPDIR', temporary);
  onTestFinished(() => void vi.unstubAllEnvs());
  const facts = await upgrade({ ...options, command: [commands[which], '{{revision}}'] });
  expect(facts).toMatchObject({ ...succeeded, barrier: 'held' });
  expect(boundaries).toEqual(['r1', 'r2']);
  expect(of('r2')).toMatchObject([{ class: 'exclusive', statement: 'CREATE TABLE two (id int)' }, { class: 'rows' }]);
  expect(await seen()).toEqual({ r1: ['3s', '1min'] });
  expect(await readdir(temporary)).toEqual([]);
});

test('a wrapper is stopped before the revision whose boundary could not be recorded', async () => {
  const { options, script, url } = await wrappedService();
  const running = upgrade({
    ...options,
    command: [script, '{{revision}}'],
    atBoundary: async () => {
      throw new Error('the store is not reachable');
    },
  });
  await expect(running).rejects.toThrow('the store is not reachable');
  const { rowCount } = await withClient(url, (client) =>
    client.query(`SELECT FROM pg_tables WHERE tablename = 'seen'`),
  );
  expect(rowCount).toBe(0);
});

test.each([
  [
    'clears the environment',
    (manage: string, url: string) => ['env', '-i', `DATABASE_URL=${url}`, manage, '{{revision}}'],
  ],
  ['isolates its Python', (manage: string) => [python, '-I', manage, '{{revision}}']],
  ['replaces PYTHONPATH', (manage: string) => ['env', 'PYTHONPATH=/nowhere', manage, '{{revision}}']],
  ['uses no Alembic', () => ['sh', '-c', 'exit 0']],
])('a wrapper that %s runs as ever, and our part is said to be absent', async (_what, commandOf) => {
  const { options, manage, boundaries, environment } = await wrappedService();
  const facts = await upgrade({ ...options, command: commandOf(manage, environment['DATABASE_URL'] ?? '') });
  expect(facts).toMatchObject({
    barrier: 'absent',
    reporter: { kind: 'absent', why: expect.stringContaining('PYTHONPATH') },
    result: { kind: 'exited', code: 0 },
  });
  expect(boundaries).toEqual([]);
});

test('a limit that ends a wrapper without our part is told by its last words', async () => {
  const { options, url } = await wrappedService();
  const facts = await withClient(url, async (client) => {
    await client.query('CREATE TABLE busy (id int)');
    await client.query('BEGIN; LOCK TABLE busy');
    const code = `import os, sqlalchemy
with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as c:
    c.exec_driver_sql("SET lock_timeout = 100")
    c.exec_driver_sql("LOCK TABLE busy")`;
    return upgrade({ ...options, command: [python, '-c', code] });
  });
  expect(facts).toMatchObject({ failedOn: 'lock-timeout', reporter: { kind: 'absent' }, result: { code: 1 } });
});

test("a process that uses no Alembic gets the service's own start-up file and path, and nothing else of ours", async () => {
  const { root } = await wrappedService();
  const own = join(root, 'own');
  await mkdir(own);
  await writeFile(join(own, 'sitecustomize.py'), 'import sys\nsys.service_was_here = True\n');
  const result = await runProcess({
    file: python,
    args: [
      '-c',
      `import sys
print(sys.service_was_here, sys.modules["sitecustomize"].__file__)
print([name for name in sys.modules if name.startswith(("_runbook", "alembic", "sqlalchemy", "socket", "json"))])
print([folder for folder in sys.path if "wrapped" in folder])`,
    ],
    environment: { PYTHONPATH: [pythonPart('wrapped'), own].join(delimiter), RUNBOOK_EVENTS_SOCKET: '/nowhere' },
    signal: new AbortController().signal,
    redactor: createRedactor([]),
  });
  requireSuccess(result, 'python');
  expect(result.stdoutTail.split('\n')).toEqual([`True ${join(own, 'sitecustomize.py')}`, '[]', '[]', '']);
});

test('a reader that reads nothing does not hold the migration up; what it missed is counted once it reads', async () => {
  const result = await runProcess({
    file: python,
    args: [
      '-c',
      `import json, os, sys
sys.path.insert(0, ${JSON.stringify(pythonPart('wrapped').replace(/wrapped$/, ''))})
from reporter import Channel
reading, writing = os.pipe()
answers, answering = os.pipe()
channel = Channel(writing, answers)
for index in range(100000):
    channel.report({"event": "note", "text": "x" * 120})
dropped = channel.dropped
print(len(channel.buffer) < 9000000, dropped > 0)
told = b""
while channel.buffer:
    told += os.read(reading, 1000000)
    channel._flush(0)
channel.report({"event": "note", "text": "again"})
told += os.read(reading, 1000000)
lines = [json.loads(line) for line in told.splitlines()]
print(lines[-2]["count"] == dropped, len(lines) - 2 + dropped)
channel.end()
print("ended")`,
    ],
    signal: new AbortController().signal,
    redactor: createRedactor([]),
  });
  requireSuccess(result, 'python');
  expect(result.stdoutTail).toBe('True True\nTrue 100000\nended\n');
});
