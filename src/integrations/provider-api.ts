import type { z } from 'zod';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { sendRequest } from './http-request.ts';

/** A JSON API that is asked with GET and one set of headers. */
export interface ProviderApi {
  /** What messages call it: `GitHub`. */
  readonly name: string;
  readonly base: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

const REQUEST_LIMIT = 20_000;
const MAXIMUM_PAGES = 10;

/** One object. @throws StepError `StepRefused` for what is not there or not allowed, `OutsideUnavailable` otherwise */
export async function getOne<T>(api: ProviderApi, path: string, form: z.ZodType<T>): Promise<T> {
  return (await getPage(api, path, form)).value;
}

/** All pages of a list, by the `Link: <...>; rel="next"` header (RFC 8288) that both providers send. */
export async function getAll<T>(api: ProviderApi, path: string, form: z.ZodType<T>): Promise<T[]> {
  const pages: T[] = [];
  let next: string | undefined = path;
  while (next !== undefined) {
    if (pages.length >= MAXIMUM_PAGES) {
      throw new StepError(
        STEP_ERRORS.refused,
        `${api.name} has more than ${MAXIMUM_PAGES} pages of ${shownPath(path)}`,
      );
    }
    const page: { value: T; next: string | undefined } = await getPage(api, next, form);
    pages.push(page.value);
    next = page.next;
  }
  return pages;
}

async function getPage<T>(
  api: ProviderApi,
  path: string,
  form: z.ZodType<T>,
): Promise<{ value: T; next: string | undefined }> {
  const label = `${api.name} ${shownPath(path)}`;
  const answer = await sendRequest({
    method: 'GET',
    url: api.base.replace(/\/+$/, '') + path,
    headers: { accept: 'application/json', 'user-agent': 'migration-runbook', ...api.headers },
    timeout: REQUEST_LIMIT,
    signal: api.signal,
    label,
  });
  if (answer.status === 401 || answer.status === 403) {
    const limited = answer.headers.get('x-ratelimit-remaining') === '0' || answer.headers.has('retry-after');
    if (limited) throw new StepError(STEP_ERRORS.unavailable, `${label}: the rate limit is used up`);
    throw new StepError(
      STEP_ERRORS.refused,
      `${label}: access denied (status ${answer.status}): look at the token's rights`,
    );
  }
  if (answer.status === 404)
    throw new StepError(STEP_ERRORS.refused, `${label}: not found, or the token may not see it`);
  if (answer.status !== 200) throw new StepError(STEP_ERRORS.unavailable, `${label}: status ${answer.status}`);
  const parsed = form.safeParse(answer.json);
  if (!parsed.success) throw new StepError(STEP_ERRORS.unavailable, `${label}: an answer that is not the API's`);
  return { value: parsed.data, next: nextPath(answer.headers.get('link'), api.base) };
}

/** Only a next page below the same base is followed: the token goes nowhere else. */
function nextPath(link: string | null, base: string): string | undefined {
  const target = /<([^>]+)>\s*;[^,]*\brel="?next"?/.exec(link ?? '')?.[1];
  const prefix = base.replace(/\/+$/, '');
  return target?.startsWith(`${prefix}/`) ? target.slice(prefix.length) : undefined;
}

const shownPath = (path: string): string => path.split('?', 1)[0] ?? '';
