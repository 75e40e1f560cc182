/** A local HTTP server that answers as the test says and remembers what it was asked. */
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { buffer } from 'node:stream/consumers';

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text, or what is sent as JSON. */
  readonly body?: unknown;
}

export interface TestServer extends AsyncDisposable {
  readonly url: string;
  readonly seen: readonly SeenRequest[];
}

/** @param answer undefined = never answer */
export async function serve(answer: (request: SeenRequest) => Answer | undefined): Promise<TestServer> {
  const seen: SeenRequest[] = [];
  const server = createServer((request, response) => {
    void buffer(request).then((body) => {
      const asked: SeenRequest = {
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        body: body.toString('utf8'),
      };
      seen.push(asked);
      const told = answer(asked);
      if (told === undefined) return;
      const json = typeof told.body !== 'string' && told.body !== undefined;
      response.writeHead(told.status ?? 200, {
        ...(json ? { 'content-type': 'application/json' } : {}),
        ...told.headers,
      });
      response.end(json ? JSON.stringify(told.body) : told.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    seen,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      // Closed already is as good.
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
