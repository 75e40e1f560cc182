import { join, resolve } from 'node:path';
import { stackParts } from './connection.ts';
import type { StackPart } from './connection.ts';
import { stackRoot } from './layout.ts';
import { olderMajors, postgresOfMajor } from './postgres-versions.ts';
import { isAlive } from './process-identity.ts';
import { attachStack, startStack, stopStack } from './stack.ts';

const usage = `usage: node scripts/stack/cli.ts up [DIRECTORY] [--parts=${stackParts.join(',')}] [--fresh]
       node scripts/stack/cli.ts down|status [DIRECTORY]
       node scripts/stack/cli.ts postgres MAJOR
DIRECTORY is .stack/dev by default. "up" leaves the servers running; "down" stops exactly those it started.
"postgres" fetches PostgreSQL of an older major version (${olderMajors.join(', ')}) and prints the folder of its programs, for STACK_POSTGRES_BIN.`;

const [command, ...rest] = process.argv.slice(2);
const directory = resolve(rest.find((word) => !word.startsWith('--')) ?? join(stackRoot, 'dev'));
const say = (line: string): void => console.log(`stack: ${line}`);

const commands = new Map<string | undefined, () => Promise<void>>([
  ['up', up],
  ['down', down],
  ['status', status],
  ['postgres', postgres],
]);

const chosen = commands.get(command);
if (chosen === undefined) {
  console.error(usage);
  process.exitCode = 2;
} else await chosen();

async function down(): Promise<void> {
  say(`${await stopStack(directory)} servers stopped in ${directory}`);
}

async function postgres(): Promise<void> {
  const major = olderMajors.find((known) => String(known) === rest[0]);
  if (major === undefined) throw new Error(`which major version? ${olderMajors.join(', ')} can be fetched`);
  console.log(await postgresOfMajor(major));
}

async function up(): Promise<void> {
  const running = await attachStack(directory);
  if (running === undefined) {
    const parts = rest
      .find((word) => word.startsWith('--parts='))
      ?.slice('--parts='.length)
      .split(',');
    const unknown = parts?.find((part) => !stackParts.some((known) => known === part));
    if (unknown !== undefined) throw new Error(`unknown part ${unknown}; known are ${stackParts.join(', ')}`);
    await startStack({
      directory,
      lifetime: 'detached',
      data: rest.includes('--fresh') ? 'fresh' : 'keep',
      onProgress: say,
      ...(parts === undefined ? {} : { parts: parts as StackPart[] }),
    });
  }
  await status();
}

/** Prints where everything is; passwords stay in the state file. */
async function status(): Promise<void> {
  const stack = await attachStack(directory);
  if (stack === undefined) {
    say(`nothing runs in ${directory}`);
    process.exitCode = 1;
    return;
  }
  for (const server of stack.servers)
    say(`${server.name.padEnd(10)} process ${server.pid} ${isAlive(server) ? 'running' : 'ENDED'}`);
  for (const [name, server] of Object.entries(stack.postgres)) say(`${name.padEnd(10)} 127.0.0.1:${server.port}`);
  if (stack.temporal !== undefined) say(`temporal   ${stack.temporal.address}, UI at ${stack.temporal.uiUrl}`);
  if (stack.s3 !== undefined) say(`s3         ${stack.s3.endpoint}, bucket ${stack.s3.bucket}`);
  say(`addresses with passwords: ${join(directory, 'stack.json')}`);
}
