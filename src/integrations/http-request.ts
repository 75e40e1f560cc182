import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';

export interface HttpRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | FormData;
  /** Milliseconds for all of it, the answer's body included. */
  readonly timeout: number;
  readonly signal: AbortSignal;
  /** What messages call the address: it may be a secret itself. */
  readonly label: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  /** The body as text, cut at 1 MB. */
  readonly text: string;
  /** The body as JSON, undefined where it is none. */
  readonly json: unknown;
  /** From sending to the end of the body. */
  readonly milliseconds: number;
}

const MAXIMUM_BODY = 1024 * 1024;
const MAXIMUM_REDIRECTS = 5;

/**
 * Sends one request. Any status is an answer. A redirect is followed within the same origin and for GET only: headers may
 * carry credentials, which `fetch` would hand to whatever host it is sent to.
 *
 * @throws StepError `OutsideUnavailable` without an answer, `StepRefused` for a request that cannot be sent; the signal's
 *   reason after an abort. The text holds the label, never the address or a header.
 */
export async function sendRequest(request: HttpRequest): Promise<HttpAnswer> {
  request.signal.throwIfAborted();
  const limit = AbortSignal.timeout(request.timeout);
  const started = performance.now();
  try {
    const response = await follow(request, AbortSignal.any([request.signal, limit]));
    const text = await bodyOf(response);
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: parsed(text),
      milliseconds: Math.round(performance.now() - started),
    };
  } catch (error) {
    if (request.signal.aborted) throw request.signal.reason;
    if (error instanceof StepError) throw error;
    const why = limit.aborted ? `no answer within ${request.timeout / 1000} s` : networkReason(error);
    throw new StepError(STEP_ERRORS.unavailable, `${request.label}: ${why}`);
  }
}

async function follow(request: HttpRequest, signal: AbortSignal): Promise<Response> {
  const headers = checkedHeaders(request);
  let url = checkedAddress(request.url, request.label);
  for (let redirects = 0; ; redirects += 1) {
    const response = await fetch(url.href, {
      method: request.method,
      headers,
      redirect: 'manual',
      signal,
      ...(request.body === undefined ? {} : { body: request.body }),
    });
    const location = response.headers.get('location');
    if (response.status < 300 || response.status > 399 || location === null || request.method !== 'GET')
      return response;
    const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
    if (next === undefined || next.origin !== url.origin || redirects >= MAXIMUM_REDIRECTS) return response;
    await response.body?.cancel();
    url = next;
  }
}

function checkedAddress(address: string, label: string): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw refusal([`${label}: the address is not one of http or https`]);
  if (url.username !== '' || url.password !== '') {
    throw refusal([`${label}: the address holds a user name or password: give an Authorization header by reference`]);
  }
  return url;
}

/** `fetch` quotes an invalid header's value in its error: look first. */
function checkedHeaders({ headers, label }: HttpRequest): Headers {
  const checked = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) {
      throw refusal([
        `${label}: the value of the header ${name} has characters that headers cannot carry (a line break?)`,
      ]);
    }
    checked.set(name, value);
  }
  return checked;
}

async function bodyOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    chunks.push(chunk);
    bytes += chunk.byteLength;
    if (bytes >= MAXIMUM_BODY) break;
  }
  return Buffer.concat(chunks).subarray(0, MAXIMUM_BODY).toString('utf8');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function networkReason(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  return code === '' ? 'the connection failed' : `cannot be reached (${code})`;
}
