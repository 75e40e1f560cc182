import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** What a process that has left its group may still hold open is not waited for. */
const closeGrace = 2_000;

/** Where the processes of a service's own command reach the worker. */
export interface ReporterSocket {
  readonly path: string;
  /** Resolves when what was connected has been heard out; nothing connects any more, nothing is left on disk. */
  close(): Promise<void>;
}

/**
 * A Unix socket in a folder that only this user may enter.
 *
 * @param converse called for each process that connects, until it closes its end; must not reject
 * @throws Error where the folder of temporary files is unusable, or its path longer than a socket's may be
 */
export async function openReporterSocket(converse: (connection: Socket) => Promise<void>): Promise<ReporterSocket> {
  const folder = await mkdtemp(join(tmpdir(), 'runbook-'));
  const connections = new Map<Socket, Promise<void>>();
  const server = createServer((connection) => {
    connection.on('error', () => undefined);
    connections.set(
      connection,
      converse(connection).finally(() => connections.delete(connection)),
    );
  });
  const path = join(folder, 'events');
  const close = async (): Promise<void> => {
    // It closes with the last of its connections.
    server.close();
    const heard = Promise.allSettled(connections.values());
    await Promise.race([heard, delay(closeGrace, undefined, { ref: false })]);
    for (const connection of connections.keys()) connection.destroy();
    await heard;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    server.listen(path);
    await once(server, 'listening');
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
  return { path, close };
}
