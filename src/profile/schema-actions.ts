/** Schemas of actions, HTTP requests, flows and checks. */
import { z } from 'zod';
import type { Action, Check, CommandAction, Flow, HttpAction } from '../contract/profile.ts';
import {
  choice,
  commandLine,
  configuredValue,
  duration,
  environment,
  headers,
  jsonValue,
  object,
  pointer,
  secret,
  text,
  webAddress,
} from './schema-values.ts';

const ANY_SUCCESS = [200, 201, 202, 204];

export const expectation = object({
  status: z.array(z.int().min(100).max(599)).min(1).default(ANY_SUCCESS),
  json: z.record(pointer, jsonValue).default({}),
  contains: z.array(text).default([]),
}).prefault({});

const method = z.enum(['GET', 'POST', 'PUT', 'PATCH', 'DELETE']);

/** The address itself may be a secret: chat webhooks are. */
const address = configuredValue.refine(
  (value) => typeof value !== 'string' || webAddress.safeParse(value).success,
  'must be an address beginning with http:// or https://, or a reference to a secret',
);

const commandKeys = {
  command: commandLine,
  directory: z.enum(['profile', 'checkout']).default('profile'),
  environment,
  timeout: duration('1s', '24h').default(60_000),
};

const httpKeys = {
  http: address,
  headers,
  body: jsonValue.optional(),
  expect: expectation,
  timeout: duration('1s', '1h').default(30_000),
};

const toCommand = (value: z.output<z.ZodObject<typeof commandKeys>>): CommandAction => ({
  kind: 'command',
  command: value.command,
  directory: value.directory,
  environment: value.environment,
  timeout: value.timeout,
});

const toHttp = (value: z.output<z.ZodObject<typeof httpKeys>> & { method: HttpAction['method'] }): HttpAction => ({
  kind: 'http',
  method: value.method,
  url: value.http,
  headers: value.headers,
  ...(value.body === undefined ? {} : { body: value.body }),
  expect: value.expect,
  timeout: value.timeout,
});

export const commandAction = object(commandKeys).transform(toCommand);

/** Tells something: POST, as the facts are its body. */
export const action: z.ZodType<Action> = choice({
  command: commandAction,
  http: object({ ...httpKeys, method: method.default('POST') }).transform(toHttp),
  file: object({ file: text }).transform(({ file }) => ({ kind: 'file', path: file }) as const),
});

/** Asks for something: GET. */
export const question: z.ZodType<Action> = choice({
  command: commandAction,
  http: object({ ...httpKeys, method: method.default('GET') }).transform(toHttp),
});

const checksBody = (value: { readonly expect: { readonly json: object; readonly contains: readonly string[] } }) =>
  Object.keys(value.expect.json).length > 0 || value.expect.contains.length > 0;

const flowRequest = object({
  name: text,
  method: method.default('GET'),
  path: z.string().regex(/^\/[^\s]*$/, 'must be a path beginning with /'),
  headers,
  json: jsonValue.optional(),
  upload: object({
    field: text.default('file'),
    fileName: text,
    contentType: text.default('application/octet-stream'),
    content: z.string().max(64_000),
  }).optional(),
  secrets: z.record(pointer, secret).default({}),
  expect: expectation,
  save: z
    .record(z.string().regex(/^[a-zA-Z][a-zA-Z0-9_]*$/, 'must be a name of letters, digits and underscores'), pointer)
    .default({}),
  timeout: duration('1s', '1h').default(30_000),
  retryFor: duration('0s', '1h').default(0),
})
  .refine(
    (request) => request.json === undefined || request.upload === undefined,
    'has json and upload at once: keep one of them',
  )
  .refine((request) => request.retryFor === 0 || request.method === 'GET', {
    path: ['retryFor'],
    error: 'is for GET only: asking again with another method would do something twice',
  })
  .refine((request) => request.upload === undefined || (request.method !== 'GET' && request.method !== 'DELETE'), {
    path: ['upload'],
    error: 'needs method: POST, PUT or PATCH',
  })
  .refine((request) => Object.keys(request.secrets).length === 0 || request.json !== undefined, {
    path: ['secrets'],
    error: 'are put into json: give json as well, e.g. json: {}',
  });

export const flow: z.ZodType<Flow> = object({
  name: text,
  requests: z.array(flowRequest).min(1),
});

export const sqlCheck = object({
  name: text,
  sql: text,
  expect: jsonValue,
  timeout: duration('1s', '1h').default(30_000),
}).transform((value) => ({
  name: value.name,
  kind: 'sql' as const,
  query: value.sql,
  expect: value.expect,
  timeout: value.timeout,
}));

export const check: z.ZodType<Check> = choice({
  command: object({ name: text, ...commandKeys }).transform((value) => ({
    name: value.name,
    kind: 'command' as const,
    action: toCommand(value),
  })),
  http: object({ name: text, ...httpKeys, method: method.default('GET') })
    .refine(checksBody, {
      path: ['expect'],
      error: 'looks at the status only: name a value of the answer under json, or a text under contains',
    })
    .transform((value) => ({ name: value.name, kind: 'http' as const, action: toHttp(value) })),
  sql: sqlCheck,
  requests: object({ name: text, baseUrl: webAddress, requests: z.array(flowRequest).min(1) }).transform((value) => ({
    name: value.name,
    kind: 'flow' as const,
    baseUrl: value.baseUrl,
    flow: { name: value.name, requests: value.requests },
  })),
});

export const ownStep = choice({
  command: object({ id: stepName(), section: section(), ...commandKeys }).transform((value) => ({
    id: value.id,
    section: value.section,
    action: toCommand(value),
    timeout: value.timeout,
  })),
  http: object({ id: stepName(), section: section(), ...httpKeys, method: method.default('GET') }).transform(
    (value) => ({
      id: value.id,
      section: value.section,
      action: toHttp(value),
      timeout: value.timeout,
    }),
  ),
});

function stepName() {
  return z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a name of lower-case letters, digits and dashes');
}

function section() {
  return z.enum(['preconditions', 'tooling', 'backup', 'dry-run', 'apply', 'validation', 'recovery', 'closeout']);
}
