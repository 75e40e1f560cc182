/** A gateway in front of the S3 server, that can hold one request or one answer: so a moment between two lasts as long as it is needed. */
import { createServer, type IncomingMessage, request as forward, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a hold is asked about. */
export interface StoreRequest {
  readonly method: string;
  /** Name of the object. */
  readonly key: string;
  readonly query: URLSearchParams;
  /** First byte asked for; 0 where no range is. */
  readonly rangeStart: number;
}

export interface Hold {
  /** Settles when a request is being held. */
  readonly reached: Promise<void>;
  /** Lets it pass, unless its client has gone meanwhile. */
  readonly release: () => void;
}

export interface StoreGateway {
  readonly endpoint: string;
  /**
   * Holds the next request that fits; those after it pass.
   *
   * @param where `request`: it does not reach the store. `answer`: the store has done it, and its client does not hear so.
   */
  readonly hold: (where: 'request' | 'answer', fits: (request: StoreRequest) => boolean) => Hold;
  readonly close: () => void;
}

interface Trap {
  readonly where: 'request' | 'answer';
  readonly fits: (request: StoreRequest) => boolean;
  readonly reached: () => void;
  readonly released: Promise<void>;
}

/** Passes everything on as it is: signatures cover the host name the client used, and the server reads it from the same header. */
export async function openStoreGateway(endpoint: string): Promise<StoreGateway> {
  const traps = new Set<Trap>();
  const store = new URL(endpoint);
  const server = createServer((incoming, answer) => {
    const asked = described(incoming);
    const trap = [...traps].find(({ fits }) => fits(asked));
    if (trap) traps.delete(trap);
    void pass(incoming, answer, store, trap);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    hold: (where, fits) => {
      const reached = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      const trap: Trap = { where, fits, reached: reached.resolve, released: released.promise };
      traps.add(trap);
      const release = (): void => {
        traps.delete(trap);
        released.resolve();
      };
      return { reached: reached.promise, release };
    },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function described({ method = 'GET', url = '/', headers }: IncomingMessage): StoreRequest {
  const { pathname, searchParams } = new URL(url, 'http://store');
  const [, , ...key] = pathname.split('/').map(decodeURIComponent);
  const rangeStart = Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0);
  return { method, key: key.join('/'), query: searchParams, rangeStart };
}

async function pass(
  incoming: IncomingMessage,
  answer: ServerResponse,
  store: URL,
  trap: Trap | undefined,
): Promise<void> {
  // The client may be killed at any time, the server taken away.
  incoming.on('error', () => undefined);
  answer.on('error', () => undefined);
  if (trap?.where === 'request') {
    trap.reached();
    await trap.released;
    if (answer.destroyed) return;
  }
  const { method, url, headers } = incoming;
  const passed = forward({ host: store.hostname, port: store.port, method, path: url, headers, agent: false });
  passed.on('error', () => answer.destroy());
  passed.on('response', (response) => {
    response.on('error', () => answer.destroy());
    void (async () => {
      if (trap?.where === 'answer') {
        trap.reached();
        await trap.released;
      }
      if (answer.destroyed) {
        response.destroy();
        return;
      }
      answer.writeHead(response.statusCode ?? 502, response.rawHeaders);
      response.pipe(answer);
    })();
  });
  incoming.on('close', () => {
    if (!incoming.complete) passed.destroy();
  });
  incoming.pipe(passed);
}
