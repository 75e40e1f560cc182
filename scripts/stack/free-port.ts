import { createServer } from 'node:net';

const handedOut = new Set<number>();

/**
 * A loopback TCP port nobody listened on a moment ago; never the same twice in one process. Another process can still take it before
 * it is used, so whoever starts a server on it tries again with another (see `startServer`).
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = await unusedPort();
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    return port;
  }
}

function unusedPort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port);
        else reject(new Error('the probe for a free port has no address'));
      });
    });
  });
}
