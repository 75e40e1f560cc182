/**
 * Rules between keys. They read the raw document, not the parsed profile, so that one message names them beside what the
 * schema found.
 */
import { BUILT_IN_STEPS } from './built-in-steps.ts';
import type { Finding } from './finding.ts';
import { valueAt } from './issue-text.ts';

export function consistencyFindings(document: unknown): Finding[] {
  return [
    ...approvalFindings(document),
    ...duplicateFindings(document, ['switches'], 'name'),
    ...duplicateFindings(document, ['checks', 'smoke'], 'name'),
    ...duplicateFindings(document, ['checks', 'smokeWrites'], 'name'),
    ...duplicateFindings(document, ['monitoring', 'measures'], 'name'),
    ...duplicateFindings(document, ['application', 'flows'], 'name'),
    ...duplicateFindings(document, ['databases', 'production', 'standbys'], 'name'),
    ...duplicateFindings(document, ['rehearsal', 'smoke'], 'name'),
    ...duplicateFindings(document, ['rehearsal', 'flows'], 'name'),
    ...signatureFindings(document),
    ...automaticFindings(document),
    ...stepFindings(document),
    ...fenceFindings(document),
    ...encryptionFindings(document),
    ...credentialFindings(document),
  ];
}

const list = (document: unknown, path: readonly PropertyKey[]): readonly unknown[] => {
  const value = valueAt(document, path);
  return Array.isArray(value) ? value : [];
};

function approvalFindings(document: unknown): Finding[] {
  const required = valueAt(document, ['approvals', 'required']) ?? 1;
  const approvers = list(document, ['approvals', 'approvers']);
  const distinct = new Set(approvers).size;
  const findings: Finding[] = [];
  if (distinct < approvers.length) findings.push({ path: ['approvals', 'approvers'], message: 'names somebody twice' });
  if (typeof required === 'number' && distinct > 0 && distinct < required) {
    findings.push({
      path: ['approvals', 'approvers'],
      message: `names ${distinct} where ${required} approvals are required: add approvers (the requester never counts) or lower approvals.required`,
    });
  }
  return findings;
}

function duplicateFindings(document: unknown, path: readonly PropertyKey[], key: string): Finding[] {
  const seen = new Map<unknown, number>();
  return list(document, path).flatMap((item, index) => {
    const isName = typeof item === 'string';
    const name = isName ? item : valueAt(item, [key]);
    if (name === undefined) return [];
    const first = seen.get(name);
    if (first === undefined) {
      seen.set(name, index);
      return [];
    }
    return [
      {
        path: [...path, index, ...(isName ? [] : [key])],
        message: `is the name of number ${first} of this list too: names must differ`,
      },
    ];
  });
}

/** Somebody who must sign and has no key could never approve. */
function signatureFindings(document: unknown): Finding[] {
  if (valueAt(document, ['approvals', 'signatures']) !== 'required') return [];
  const required = valueAt(document, ['approvals', 'required']) ?? 1;
  const approvers = list(document, ['approvals', 'approvers']);
  const able = new Set(
    list(document, ['approvals', 'signers'])
      .map((signer) => valueAt(signer, ['name']))
      .filter((name) => approvers.length === 0 || approvers.includes(name)),
  ).size;
  if (typeof required !== 'number' || able >= required) return [];
  return [
    {
      path: ['approvals', 'signers'],
      message: `has keys of ${able} who may approve, where ${required} signed approvals are required: add {name, key} of others`,
    },
  ];
}

/** By itself something may be undone only where that takes back nothing of the users': that needs the fence. */
function automaticFindings(document: unknown): Finding[] {
  if ((valueAt(document, ['fence']) ?? 'none') !== 'none') return [];
  const words = {
    rollback:
      'a downgrade that was lossless for the rows of the backup may not be so for those that users write meanwhile',
    restore: 'it would take back what users write after the backup',
  } as const;
  return (['rollback', 'restore'] as const).flatMap((key) =>
    valueAt(document, ['recovery', key]) === 'automatic'
      ? [{ path: ['recovery', key], message: `is automatic without a fence: ${words[key]}. Give a fence, or ask` }]
      : [],
  );
}

function stepFindings(document: unknown): Finding[] {
  const findings = duplicateFindings(document, ['steps'], 'id');
  const own = new Set<string>();
  for (const [index, step] of list(document, ['steps']).entries()) {
    const id = `${String(valueAt(step, ['section']))}.${String(valueAt(step, ['id']))}`;
    own.add(id);
    if (BUILT_IN_STEPS.has(id))
      findings.push({ path: ['steps', index, 'id'], message: `${id} is a built-in step: choose another id` });
  }
  const timeouts = valueAt(document, ['timeouts']);
  for (const id of Object.keys(typeof timeouts === 'object' && timeouts !== null ? timeouts : {})) {
    if (own.has(id)) {
      findings.push({ path: ['timeouts', id], message: 'is an own step: give it its time limit where it is defined' });
    } else if (!BUILT_IN_STEPS.has(id)) {
      findings.push({
        path: ['timeouts', id],
        message: `is not the id of a step. Known: ${[...BUILT_IN_STEPS].join(', ')}`,
      });
    }
  }
  return findings;
}

const OWN_OBLIGATIONS: ReadonlySet<string> = new Set(['write fence', 'rehearsal databases']);

function fenceFindings(document: unknown): Finding[] {
  const findings = list(document, ['switches']).flatMap((item, index) =>
    OWN_OBLIGATIONS.has(String(valueAt(item, ['name'])))
      ? [{ path: ['switches', index, 'name'], message: 'is the name of an obligation of every run: choose another' }]
      : [],
  );
  if (
    valueAt(document, ['fence']) === 'read-only' &&
    valueAt(document, ['databases', 'production', 'application']) === undefined
  ) {
    findings.push({
      path: ['databases', 'production', 'application'],
      message: 'is missing: with fence: read-only the fence is tried as the service itself',
    });
  }
  return findings;
}

function encryptionFindings(document: unknown): Finding[] {
  if (valueAt(document, ['backup', 'kmsKeyId']) === undefined) return [];
  if (valueAt(document, ['backup', 'serverSideEncryption']) === 'aws:kms') return [];
  return [{ path: ['backup', 'kmsKeyId'], message: 'is for serverSideEncryption: aws:kms only, give that as well' }];
}

/** Two references alike resolve to one credential: a role shared, or one database taken for another. */
function credentialFindings(document: unknown): Finding[] {
  const paths = [
    ['databases', 'production', 'administrator'],
    ['databases', 'production', 'migrator'],
    ['databases', 'production', 'backup'],
    ['databases', 'staging', 'administrator'],
    ['databases', 'staging', 'migrator'],
    ['databases', 'scratch', 'administrator'],
  ] as const;
  const seen = new Map<string, readonly string[]>();
  const findings: Finding[] = [];
  for (const path of paths) {
    const reference = valueAt(document, path);
    if (typeof reference !== 'object' || reference === null) continue;
    const key = JSON.stringify(reference);
    const first = seen.get(key);
    if (first === undefined) seen.set(key, path);
    else if (!mayShare(first, path)) {
      findings.push({
        path,
        message: `is the same reference as ${first.join('.')}: each role and each database has a credential of its own`,
      });
    }
  }
  return findings;
}

/** Staging and the scratch databases may live on one server under one administrator; production never shares. */
const mayShare = (one: readonly string[], other: readonly string[]): boolean =>
  one[1] !== 'production' && other[1] !== 'production' && one[2] === other[2];
