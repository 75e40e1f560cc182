import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { CreateMultipartUploadCommand, S3Client, UploadPartCommand } from '@aws-sdk/client-s3';
import { afterAll, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/archive/canonical.ts';
import { ObjectChanged } from '../../src/archive/ranged-download.ts';
import { randomName, useStack } from '../stack.ts';
import { never, openTestStore } from './archive-source.ts';

const stack = useStack();
const store = openTestStore();
const prefix = randomName('store');
const PART = 5 * 1024 * 1024;
afterAll(() => store.close());

async function* pieces(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < content.length; start += size) yield content.subarray(start, start + size);
}

const upload = (
  key: string,
  source: AsyncIterable<Uint8Array>,
  signal = never(),
  progress = (_bytes: number): void => undefined,
) => store.upload(key, source, { partSize: PART, signal, progress });

async function download(key: string, bytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of store.download(key, bytes, never())) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe('documents', () => {
  it('come back as they were stored, with size and digest', async () => {
    const key = `${prefix}/document ü.json`;
    const stored = await store.put(key, '{"ü":1}', 'application/json', never());
    expect(stored).toEqual({ uri: `s3://${stack.s3.bucket}/${key}`, sha256: sha256('{"ü":1}'), bytes: 8 });
    expect(Buffer.from((await store.get(key, never()))!).toString()).toBe('{"ü":1}');
    expect(await store.head(key, never())).toMatchObject({ key, bytes: 8 });
    expect((await store.list(`${prefix}/doc`, never())).map((object) => object.key)).toEqual([key]);
    await store.delete(key, never());
    await store.delete(key, never());
    expect(await store.get(key, never())).toBeUndefined();
    expect(await store.head(key, never())).toBeUndefined();
    expect(await store.list(`${prefix}/doc`, never())).toEqual([]);
  });
});

describe('streams', () => {
  it.each([0, 1, PART - 1, PART, PART + 1, 2 * PART, 4 * PART + 12_345])(
    'of %i bytes come back whole',
    async (size) => {
      const content = randomBytes(size);
      const key = `${prefix}/stream-${size}`;
      let reported = 0;
      const uploaded = await upload(key, pieces(content, 60_001), never(), (bytes) => {
        expect(bytes).toBeGreaterThanOrEqual(reported);
        reported = bytes;
      });
      expect(uploaded).toEqual({ bytes: size, sha256: sha256(content) });
      expect(reported).toBe(size);
      expect(content.equals(await download(key, size))).toBe(true);
    },
  );

  it('that fail leave what was there before, and no parts', async () => {
    const key = `${prefix}/failing`;
    await store.put(key, 'before', 'text/plain', never());
    const reason = new Error('the source broke');
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield* pieces(randomBytes(3 * PART), 65_536);
      throw reason;
    }
    await expect(upload(key, failing())).rejects.toBe(reason);
    expect(Buffer.from((await store.get(key, never()))!).toString()).toBe('before');
    expect(await store.abortUploads(key, never())).toBe(0);
  });

  it('that fail within the first part are not stored either', async () => {
    const key = `${prefix}/failing-early`;
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield randomBytes(1000);
      throw new Error('broke early');
    }
    await expect(upload(key, failing())).rejects.toThrow('broke early');
    expect(await store.head(key, never())).toBeUndefined();
  });

  it('that are cancelled on the way leave nothing, and their source is closed', async () => {
    const key = `${prefix}/cancelled`;
    const stop = new AbortController();
    let closed = false;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield randomBytes(65_536);
      } finally {
        closed = true;
      }
    }
    const reason = new Error('enough');
    await expect(upload(key, endless(), stop.signal, () => stop.abort(reason))).rejects.toBe(reason);
    expect(closed).toBe(true);
    expect(await store.head(key, never())).toBeUndefined();
    expect(await store.abortUploads(key, never())).toBe(0);
  });

  it('whose reader goes away early are no longer fetched', async () => {
    const key = `${prefix}/read-partly`;
    await upload(key, pieces(randomBytes(4 * PART), 65_536));
    for await (const chunk of store.download(key, 4 * PART, never())) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
  });

  it('of an object that is shorter by now, or gone, do not end as if whole', async () => {
    const key = `${prefix}/shrinking`;
    await store.put(key, randomBytes(1000), 'application/octet-stream', never());
    await expect(download(key, 9 * 1024 * 1024)).rejects.toBeInstanceOf(ObjectChanged);
    await store.delete(key, never());
    await expect(download(key, 1000)).rejects.toBeInstanceOf(ObjectChanged);
  });
});

describe('a server that answers otherwise than asked', () => {
  const content = randomBytes(1000);

  async function withServer(answer: RequestListener, work: (endpoint: string) => Promise<void>): Promise<void> {
    const server = createServer(answer).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  async function downloadFrom(endpoint: string): Promise<Buffer> {
    const other = openTestStore({ endpoint }).patient({ milliseconds: 20_000 });
    const chunks: Uint8Array[] = [];
    try {
      for await (const chunk of other.download('some/key', content.length, never())) chunks.push(chunk);
    } finally {
      other.close();
    }
    return Buffer.concat(chunks);
  }

  it('and ignores ranges is refused before all of the object is in memory', async () => {
    await withServer(
      (_request, response) => {
        response.writeHead(200, { 'Content-Length': 10 ** 12 });
        response.write(content);
      },
      async (endpoint) => {
        await expect(downloadFrom(endpoint)).rejects.toMatchObject({
          type: 'StepRefused',
          message: expect.stringContaining('ignores ranges'),
        });
      },
    );
  });

  it('and is unable at first, and then comes short once, is asked again', async () => {
    let asked = 0;
    await withServer(
      (_request, response) => {
        asked += 1;
        if (asked <= 4) response.writeHead(503).end();
        else response.writeHead(206).end(asked === 5 ? content.subarray(1) : content);
      },
      async (endpoint) => {
        expect(content.equals(await downloadFrom(endpoint))).toBe(true);
      },
    );
    expect(asked).toBe(6);
  });

  it.each(['an answer', 'no answer'] as const)(
    'and takes its time to begin an upload that is cancelled meanwhile is told to give it up, with %s',
    async (kind) => {
      const stop = new AbortController();
      const reason = new Error('cancelled');
      const told: string[] = [];
      const xml = (content: string): string => `<?xml version="1.0"?>${content}`;
      await withServer(
        (request, response) => {
          const url = new URL(request.url ?? '', 'http://localhost');
          if (request.method === 'POST' && url.searchParams.has('uploads')) {
            stop.abort(reason);
            const answer = (): unknown =>
              kind === 'an answer'
                ? response.end(
                    xml('<InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>'),
                  )
                : response.destroy();
            setTimeout(answer, 200);
          } else if (request.method === 'GET') {
            const begun = '<Upload><Key>some/key</Key><UploadId>one</UploadId></Upload>';
            response.end(xml(`<ListMultipartUploadsResult>${begun}</ListMultipartUploadsResult>`));
          } else {
            told.push(`${request.method} ${url.searchParams.get('uploadId')}`);
            response.writeHead(204).end();
          }
        },
        async (endpoint) => {
          const other = openTestStore({ endpoint });
          const source = pieces(randomBytes(PART + 1), 65_536);
          const options = { partSize: PART, signal: stop.signal, progress: () => undefined };
          await expect(other.upload('some/key', source, options)).rejects.toBe(reason);
          other.close();
        },
      );
      expect(told).toEqual(['DELETE one']);
    },
  );

  it('and does not let uploads be given up is found by the probe', async () => {
    let stored = Buffer.alloc(0);
    const xml = (text: string): string => `<?xml version="1.0"?>${text}`;
    await withServer(
      (request, response) => {
        const { pathname, searchParams } = new URL(request.url ?? '', 'http://localhost');
        const key = pathname.split('/').slice(2).join('/');
        if (request.method === 'PUT') void buffer(request).then((body) => response.end((stored = body) && ''));
        else if (request.method === 'HEAD') response.writeHead(200, { 'Content-Length': stored.length }).end();
        else if (request.method === 'POST')
          response.end(xml('<InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>'));
        else if (searchParams.has('uploadId'))
          response.writeHead(403).end(xml('<Error><Code>AccessDenied</Code><Message>no</Message></Error>'));
        else if (request.method === 'DELETE') response.writeHead(204).end();
        else if (searchParams.has('uploads')) response.end(xml('<ListMultipartUploadsResult/>'));
        else if (searchParams.has('list-type'))
          response.end(
            xml(`<ListBucketResult><Contents><Key>${searchParams.get('prefix')}</Key></Contents></ListBucketResult>`),
          );
        else response.end(key === '' ? '' : stored);
      },
      async (endpoint) => {
        const other = openTestStore({ endpoint });
        const { bucket } = stack.s3;
        expect(await other.probe('some', never())).toEqual([
          `Bucket ${bucket}: s3:AbortMultipartUpload is denied below some/. Grant it to backup.accessKeyId.`,
        ]);
        other.close();
      },
    );
  });

  it('and comes short every time is not waited for any longer', async () => {
    await withServer(
      (_request, response) => response.writeHead(206).end(content.subarray(1)),
      async (endpoint) => {
        await expect(downloadFrom(endpoint)).rejects.toBeInstanceOf(ObjectChanged);
      },
    );
  });
});

it('removes what an uploader left behind that was killed, of exactly that key', async () => {
  const client = new S3Client({
    region: stack.s3.region,
    endpoint: stack.s3.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: stack.s3.accessKeyId, secretAccessKey: stack.s3.secretAccessKey },
  });
  const begin = async (key: string): Promise<void> => {
    const object = { Bucket: stack.s3.bucket, Key: key };
    const { UploadId } = await client.send(new CreateMultipartUploadCommand(object));
    await client.send(new UploadPartCommand({ ...object, UploadId, PartNumber: 1, Body: randomBytes(1000) }));
  };
  await begin(`${prefix}/left`);
  await begin(`${prefix}/left`);
  await begin(`${prefix}/left-by-another`);
  client.destroy();
  expect(await store.abortUploads(`${prefix}/left`, never())).toBe(2);
  expect(await store.abortUploads(`${prefix}/left`, never())).toBe(0);
  expect(await store.abortUploads(`${prefix}/left-by-another`, never())).toBe(1);
});

describe('the probe', () => {
  it('finds nothing wrong with a usable bucket and leaves nothing in it', async () => {
    expect(await store.probe(`${prefix}/probe/`, never())).toEqual([]);
    expect(await store.list(`${prefix}/probe`, never())).toEqual([]);
    expect(await store.interruptedUploads(`${prefix}/probe`, never())).toEqual([]);
  });

  it('tells an absent bucket, denied access and an unreachable server apart, without credentials', async () => {
    const { secretAccessKey, accessKeyId } = stack.s3;
    const findings = [
      [{ bucket: 'no-such-bucket' }, /bucket no-such-bucket does not exist/],
      [{ secretAccessKey: 'not-the-key' }, /is denied\. Check backup\.accessKeyId/],
      [{ endpoint: 'http://127.0.0.1:9' }, /did not answer.*ECONNREFUSED/],
    ] as const;
    for (const [change, expected] of findings) {
      const other = openTestStore(change);
      const found = await other.probe(prefix, never());
      other.close();
      expect(found).toHaveLength(1);
      expect(found[0]).toMatch(expected);
      expect(found[0]).not.toContain(secretAccessKey);
      expect(found[0]).not.toContain(accessKeyId);
      expect(found[0]).not.toContain('not-the-key');
    }
  });

  it('calls an unreachable server worth another try, and wrong credentials not', async () => {
    const unreachable = openTestStore({ endpoint: 'http://127.0.0.1:9' });
    await expect(unreachable.get(`${prefix}/x`, never())).rejects.toMatchObject({ type: 'OutsideUnavailable' });
    const denied = openTestStore({ secretAccessKey: 'not-the-key' });
    await expect(denied.put(`${prefix}/x`, 'x', 'text/plain', never())).rejects.toMatchObject({ type: 'StepRefused' });
    const absent = openTestStore({ bucket: 'no-such-bucket' });
    await expect(absent.put(`${prefix}/x`, 'x', 'text/plain', never())).rejects.toMatchObject({ type: 'StepRefused' });
    for (const other of [unreachable, denied, absent]) other.close();
  });
});
