/** Reads a profile: YAML text -> findings, or the canonical profile with its digest. */
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { isNode, LineCounter, parseDocument, visit } from 'yaml';
import { canonicalDigest } from '../archive/canonical.ts';
import { refusal } from '../contract/errors.ts';
import type { Profile } from '../contract/profile.ts';
import { consistencyFindings } from './consistency.ts';
import { type Finding, formatPath } from './finding.ts';
import { describeIssue } from './issue-text.ts';
import { literalSecrets } from './literal-secrets.ts';
import { placeholderFindings } from './placeholders.ts';
import { profileSchema } from './schema.ts';

/** A profile travels with every activity through the history, where a payload of 2 MB ends a run. */
const MAXIMUM_BYTES = 128 * 1024;
const ENDING = '.yaml';

export interface LoadedProfile {
  readonly profile: Profile;
  /** SHA-256 of the canonical JSON (RFC 8785) without `home`, so that it is the same on every worker. */
  readonly digest: string;
}

/**
 * Loads `<directory>/<service>.yaml`.
 *
 * @throws StepError `StepRefused` naming every finding, or the known services
 */
export async function loadProfile(directory: string, service: string): Promise<LoadedProfile> {
  const known = await listServices(directory);
  // Only names of the listing are opened: a service's name never becomes a path of its own.
  if (!known.includes(service)) {
    const choice =
      known.length === 0
        ? `there is no profile in ${directory}; --profiles (RUNBOOK_PROFILES) names the folder`
        : `known services: ${known.join(', ')}`;
    throw refusal([`the service ${JSON.stringify(service.slice(0, 80))} has no profile; ${choice}`]);
  }
  const file = `${service}${ENDING}`;
  const loaded = parseProfile(await readFile(join(directory, file), 'utf8'), resolve(directory), file);
  if (loaded.profile.service !== service) {
    throw refusal([`${file}: service: is not the name of the file: name the file after the service`]);
  }
  return loaded;
}

/** Services that have a profile, sorted. An absent folder has none. */
export async function listServices(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.isDirectory() && entry.name.endsWith(ENDING))
    .map((entry) => entry.name.slice(0, -ENDING.length))
    .toSorted();
}

/**
 * @param home folder that relative paths and commands of the profile start from
 * @param file name shown in findings
 * @throws StepError `StepRefused` with every finding: file, line, path and what to do
 */
export function parseProfile(text: string, home: string, file: string): LoadedProfile {
  if (Buffer.byteLength(text) > MAXIMUM_BYTES) throw refusal([`${file}: is larger than 128 kB`]);
  const lines = new LineCounter();
  const yaml = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, stringKeys: true });
  const problems: { readonly pos: readonly [number, number]; readonly message: string }[] = [
    ...yaml.errors,
    ...yaml.warnings,
  ];
  visit(yaml, {
    Alias: (_key, alias) => {
      if (alias.resolve(yaml) !== undefined) return;
      problems.push({ pos: [alias.range?.[0] ?? 0, 0], message: `*${alias.source} refers to nothing before it` });
    },
  });
  if (problems.length > 0) {
    throw refusal(
      problems.map((problem) => {
        const { line, col } = lines.linePos(problem.pos[0]);
        return `${file}:${line}:${col}: ${firstLine(problem.message)}`;
      }),
    );
  }
  let document: unknown;
  try {
    document = yaml.toJS({ maxAliasCount: 50 });
  } catch (error) {
    throw refusal([`${file}: ${firstLine(error instanceof Error ? error.message : 'cannot be read')}`]);
  }
  const { findings, profile } = examine(document);
  if (profile === undefined || findings.length > 0) {
    const place = (path: readonly PropertyKey[]): string => {
      for (let depth = path.length; depth > 0; depth -= 1) {
        const node = yaml.getIn(path.slice(0, depth), true);
        if (isNode(node) && node.range) return `:${lines.linePos(node.range[0]).line}`;
      }
      return '';
    };
    throw refusal(
      findings.map(
        ({ path, message }) => `${file}${place(path)}: ${formatPath(path)}${path.length > 0 ? ': ' : ''}${message}`,
      ),
    );
  }
  return { profile: { ...profile, home }, digest: canonicalDigest(profile) };
}

function examine(document: unknown): { findings: readonly Finding[]; profile: Omit<Profile, 'home'> | undefined } {
  const result = profileSchema.safeParse(document);
  const secrets = literalSecrets(document);
  const told = new Set(secrets.map(({ path }) => formatPath(path)));
  const findings: Finding[] = [...secrets];
  for (const issue of result.error?.issues ?? []) {
    // A literal where a reference belongs is said once, by the finding that knows why.
    if (!told.has(formatPath(issue.path))) findings.push({ path: issue.path, message: describeIssue(issue, document) });
  }
  findings.push(...placeholderFindings(document), ...consistencyFindings(document));
  return { findings, profile: result.data };
}

const firstLine = (text: string): string => text.split('\n', 1)[0] ?? '';
