import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/tls/${name}`, import.meta.url));
const authority = fixture('localhost-certificate.pem');

/** PostgreSQL's SSLRequest: length 8, code 80877103. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/** The stack's server is built without TLS, so this speaks it in front: the certificate is for `localhost` alone. */
let front: Server;
let encryptedConnections = 0;
beforeAll(async () => {
  front = createServer((client) => {
    client.on('error', () => undefined);
    client.once('data', (first) => {
      if (!SSL_REQUEST.equals(first)) return client.destroy();
      client.write('S');
      const encrypted = new TLSSocket(client, {
        isServer: true,
        key: readFileSync(fixture('localhost-key.pem')),
        cert: readFileSync(authority),
      });
      encrypted.on('error', () => undefined);
      encrypted.once('secure', () => {
        encryptedConnections += 1;
      });
      join(encrypted, connect(server.port, server.host));
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => front.once('listening', resolve));
});
afterAll(() => new Promise((resolve) => front.close(resolve)));

function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => undefined);
    from.on('close', () => to.destroy());
    from.pipe(to);
  }
}

function connectWith(host: string, parameters: Record<string, string>): Promise<number> {
  const url = new URL(server.superuserUrl);
  url.hostname = host;
  url.port = String((front.address() as AddressInfo).port);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  const options = { runId: 'tls', step: 'test', signal: new AbortController().signal };
  return withConnection(url.href, options, async (client) => (await client.query('SELECT 1')).rowCount ?? 0);
}

it.each([
  ['prefer: encrypted where it is offered', 'localhost', {}],
  ['require: encrypted, whoever it is', '127.0.0.1', { sslmode: 'require' }],
  ['verify-ca: a known authority, whatever the name', '127.0.0.1', { sslmode: 'verify-ca', sslrootcert: authority }],
  [
    'verify-full: a known authority and the right name',
    'localhost',
    { sslmode: 'verify-full', sslrootcert: authority },
  ],
])('connects with %s', async (_, host, parameters) => {
  const before = encryptedConnections;
  expect(await connectWith(host, parameters)).toBe(1);
  expect(encryptedConnections).toBe(before + 1);
});

it.each([
  [
    'verify-full and another name than the certificate’s',
    '127.0.0.1',
    { sslmode: 'verify-full', sslrootcert: authority },
  ],
  ['verify-full and an authority nobody knows', 'localhost', { sslmode: 'verify-full' }],
  [
    'verify-full and another authority',
    'localhost',
    { sslmode: 'verify-full', sslrootcert: fixture('other-authority.pem') },
  ],
  [
    'verify-ca and another authority',
    'localhost',
    { sslmode: 'verify-ca', sslrootcert: fixture('other-authority.pem') },
  ],
  // As libpq: with a root certificate at hand, require means verify-ca.
  ['require and another authority', 'localhost', { sslmode: 'require', sslrootcert: fixture('other-authority.pem') }],
])('refuses with %s', async (_, host, parameters) => {
  await expect(connectWith(host, parameters)).rejects.toMatchObject({
    type: STEP_ERRORS.refused,
    message: expect.stringContaining('is not trusted'),
  });
});
