/** GitHub and GitLab are not at hand: answers have the form their REST documentation gives. */
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { ReviewProfile } from '../../src/contract/profile.ts';
import { confirmReview } from '../../src/integrations/review.ts';
import { type Answer, serve } from '../http-server.ts';
import { testContext } from '../integration-context.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const commit = 'a'.repeat(40);
const other = 'b'.repeat(40);
const target = { tag: 'release/v1.1.0', commit };
const token = { kind: 'file', path: 'token' } as const;
let home: string;

beforeAll(async () => {
  home = await temporaryDirectory('review');
  await writeFile(join(home, 'token'), 'ghs_0123456789abcdef', { mode: 0o600 });
});

const verdict = (review: ReviewProfile) =>
  confirmReview(review, target, testContext(home)).then(
    (facts) => facts,
    (error: StepError) => {
      expect(error.type).toBe(STEP_ERRORS.refused);
      expect(error.message).not.toContain('ghs_0123456789abcdef');
      return error.details['findings'] ?? error.message;
    },
  );

type Answers = Readonly<Record<string, Answer['body']>>;

const GITHUB: Answers = {
  '/repos/acme/whisper/commits/tags/release/v1.1.0': { sha: commit },
  [`/repos/acme/whisper/commits/${commit}/pulls`]: [
    { number: 7, merged_at: '2026-11-01T10:00:00Z', user: { login: 'dana' } },
  ],
  '/repos/acme/whisper/pulls/7/reviews': [
    { state: 'CHANGES_REQUESTED', user: { login: 'erin' } },
    { state: 'APPROVED', user: { login: 'erin' } },
    { state: 'COMMENTED', user: { login: 'erin' } },
    { state: 'APPROVED', user: { login: 'dana' } },
  ],
  [`/repos/acme/whisper/commits/${commit}/check-runs`]: {
    total_count: 2,
    check_runs: [
      { name: 'tests', status: 'completed', conclusion: 'success' },
      { name: 'docs', status: 'completed', conclusion: 'skipped' },
    ],
  },
  [`/repos/acme/whisper/commits/${commit}/status`]: { state: 'pending', total_count: 0, statuses: [] },
};

async function onGithub(changes: Answers, minimumReviewers = 1): Promise<unknown> {
  const answers = { ...GITHUB, ...changes };
  await using server = await serve(({ path, headers }) => {
    if (headers.authorization !== 'Bearer ghs_0123456789abcdef')
      return { status: 401, body: { message: 'Bad credentials' } };
    const body = answers[path.split('?', 1)[0] ?? ''];
    return body === undefined ? { status: 404, body: { message: 'Not Found' } } : { body };
  });
  return await verdict({
    source: { kind: 'github', apiUrl: server.url, repository: 'acme/whisper', token },
    minimumReviewers,
  });
}

describe('a review on GitHub', () => {
  test('of a commit with green checks and an approval by another than the author passes', async () => {
    expect(await onGithub({})).toEqual({
      commit,
      checks: 'success',
      reviewers: ['erin'],
      objections: [],
      source: 'GitHub acme/whisper',
    });
  });

  test('is refused with everything that is missing at once', async () => {
    expect(
      await onGithub(
        {
          '/repos/acme/whisper/commits/tags/release/v1.1.0': { sha: other },
          '/repos/acme/whisper/pulls/7/reviews': [
            { state: 'APPROVED', user: { login: 'erin' } },
            { state: 'DISMISSED', user: { login: 'erin' } },
            { state: 'CHANGES_REQUESTED', user: { login: 'frank' } },
          ],
          [`/repos/acme/whisper/commits/${commit}/check-runs`]: {
            total_count: 1,
            check_runs: [{ name: 'tests', status: 'completed', conclusion: 'failure' }],
          },
        },
        2,
      ),
    ).toEqual([
      expect.stringContaining(`but the review is of ${other}: the tag was moved`),
      'frank requested changes in pull request 7',
      'failed: tests',
      'checks have failed',
      'reviewed and approved by nobody, 2 needed',
    ]);
  });

  test.each<[string, Answers, string]>([
    [
      'checks still run',
      {
        [`/repos/acme/whisper/commits/${commit}/check-runs`]: {
          check_runs: [{ name: 't', status: 'in_progress', conclusion: null }],
        },
      },
      'checks are still running',
    ],
    [
      'no check ran',
      { [`/repos/acme/whisper/commits/${commit}/check-runs`]: { check_runs: [] } },
      'no check ran on this commit',
    ],
    [
      'all checks were skipped',
      {
        [`/repos/acme/whisper/commits/${commit}/check-runs`]: {
          check_runs: [{ name: 't', status: 'completed', conclusion: 'skipped' }],
        },
      },
      'no check ran on this commit',
    ],
    [
      'a status failed',
      {
        [`/repos/acme/whisper/commits/${commit}/status`]: {
          state: 'failure',
          total_count: 1,
          statuses: [{ context: 'ci/build', state: 'failure' }],
        },
      },
      'failed: ci/build',
    ],
    [
      'nothing was merged',
      { [`/repos/acme/whisper/commits/${commit}/pulls`]: [{ number: 7, merged_at: null, user: null }] },
      'no merged pull request holds this commit',
    ],
    [
      'the tag is not there',
      { '/repos/acme/whisper/commits/tags/release/v1.1.0': undefined },
      'not found, or the token may not see it',
    ],
  ])('is refused where %s', async (_name, changes, expected) => {
    expect(JSON.stringify(await onGithub(changes))).toContain(expected);
  });

  test('reads all pages of a list, and follows no page to another host', async () => {
    let base = '';
    await using server = await serve(({ path }) => {
      if (path.startsWith('/repos/acme/whisper/pulls/7/reviews')) {
        return path.includes('page=2')
          ? {
              body: [{ state: 'APPROVED', user: { login: 'gail' } }],
              headers: { link: '<http://other.example.com/x>; rel="next"' },
            }
          : {
              body: [],
              headers: {
                link: `<${base}/repos/acme/whisper/pulls/7/reviews?page=2>; rel="next", <${base}/repos/acme/whisper/pulls/7/reviews?page=2>; rel="last"`,
              },
            };
      }
      return { body: GITHUB[path.split('?', 1)[0] ?? ''] };
    });
    base = server.url;
    const facts = await verdict({
      source: { kind: 'github', apiUrl: base, repository: 'acme/whisper', token },
      minimumReviewers: 1,
    });
    expect(facts).toMatchObject({ reviewers: ['gail'] });
  });

  test('is tried again when GitHub is in trouble, not when access is denied', async () => {
    await using broken = await serve(() => ({ status: 500 }));
    await using denied = await serve(() => ({ status: 403, body: { message: 'Forbidden' } }));
    await using limited = await serve(() => ({ status: 403, headers: { 'x-ratelimit-remaining': '0' } }));
    const typeOf = (apiUrl: string) =>
      confirmReview(
        { source: { kind: 'github', apiUrl, repository: 'acme/whisper', token }, minimumReviewers: 1 },
        target,
        testContext(home),
      ).catch((error: StepError) => error.type);
    expect(await typeOf(broken.url)).toBe(STEP_ERRORS.unavailable);
    expect(await typeOf(denied.url)).toBe(STEP_ERRORS.refused);
    expect(await typeOf(limited.url)).toBe(STEP_ERRORS.unavailable);
  });
});

describe('a review on GitLab', () => {
  const project = '/projects/acme%2Fwhisper';
  const onGitlab = async (pipeline: string | null, approvedBy: readonly string[]): Promise<unknown> => {
    await using server = await serve(({ path }) => {
      const answers: Answers = {
        [`${project}/repository/tags/release%2Fv1.1.0`]: { name: 'release/v1.1.0', commit: { id: commit } },
        [`${project}/repository/commits/${commit}`]: {
          id: commit,
          last_pipeline: pipeline === null ? null : { id: 1, status: pipeline },
        },
        [`${project}/repository/commits/${commit}/merge_requests`]: [
          { iid: 4, state: 'merged', author: { username: 'dana' } },
          { iid: 5, state: 'opened', author: { username: 'dana' } },
        ],
        [`${project}/merge_requests/4/approvals`]: {
          approved_by: approvedBy.map((username) => ({ user: { username } })),
        },
      };
      const body = answers[path.split('?', 1)[0] ?? ''];
      return body === undefined ? { status: 404 } : { body };
    });
    return await verdict({
      source: { kind: 'gitlab', apiUrl: server.url, project: 'acme/whisper', token },
      minimumReviewers: 1,
    });
  };

  test('passes with a green pipeline and an approval by another than the author', async () => {
    expect(await onGitlab('success', ['dana', 'erin'])).toMatchObject({
      checks: 'success',
      reviewers: ['erin'],
      commit,
    });
  });

  test.each([
    ['failed', 'checks have failed'],
    ['canceled', 'checks have failed'],
    ['running', 'checks are still running: wait for them and start again'],
    ['manual', 'checks are still running: wait for them and start again'],
    ['skipped', 'no check ran on this commit'],
    [null, 'no check ran on this commit'],
  ])('is refused with a pipeline that is %s', async (pipeline, expected) => {
    expect(await onGitlab(pipeline, ['erin'])).toEqual([expected]);
  });

  test('is refused with the author’s own approval alone', async () => {
    expect(await onGitlab('success', ['dana'])).toEqual(['reviewed and approved by nobody, 1 needed']);
  });
});

describe('a review told by a command', () => {
  const told = async (script: string): Promise<unknown> => {
    await writeFile(join(home, 'reviewctl'), `#!/bin/sh\n${script}\n`);
    await chmod(join(home, 'reviewctl'), 0o755);
    return verdict({
      source: {
        kind: 'command',
        action: {
          kind: 'command',
          command: ['./reviewctl', '{{releaseTag}}', '{{commit}}'],
          directory: 'profile',
          environment: {},
          timeout: 5_000,
        },
      },
      minimumReviewers: 1,
    });
  };

  test('passes when it says so of this commit', async () => {
    expect(
      await told(`echo '{"commit":"'$2'","reviewed":true,"reviewers":["erin","erin"],"checks":"success"}'`),
    ).toMatchObject({
      reviewers: ['erin'],
      source: 'command ./reviewctl',
    });
  });

  test('is refused when it speaks of another commit, says no, or says nothing that can be read', async () => {
    expect(await told(`echo '{"commit":"${other}","reviewed":false,"reviewers":[],"checks":"pending"}'`)).toHaveLength(
      4,
    );
    expect(await told('echo fine')).toEqual([expect.stringContaining('the review command must print')]);
  });
});
