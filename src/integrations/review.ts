/** Has the release's commit been reviewed, and did its checks pass? Told by the team's own provider. */
import { z } from 'zod';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { ReviewProfile } from '../contract/profile.ts';
import { runDocument } from './actions.ts';
import { runCommandAction } from './command-action.ts';
import type { IntegrationContext } from './context.ts';
import type { ReviewedCommit, ReviewFacts } from './review-facts.ts';
import { githubReview } from './review-github.ts';
import { gitlabReview } from './review-gitlab.ts';

/**
 * @throws StepError `StepRefused` naming everything that is missing: a moved tag, no reviewer, checks not green
 */
export async function confirmReview(
  review: ReviewProfile,
  { tag, commit }: ReviewedCommit,
  context: IntegrationContext,
): Promise<ReviewFacts & { readonly source: string }> {
  const { source } = review;
  const facts = await factsFrom(source, { tag, commit }, context);
  const findings = [...facts.objections];
  if (facts.commit !== commit) {
    findings.unshift(
      `the tag ${tag} names ${commit} in the repository, but the review is of ${facts.commit}: the tag was moved or the review looked elsewhere`,
    );
  }
  if (facts.checks !== 'success') findings.push(CHECKS[facts.checks]);
  if (facts.reviewers.length < review.minimumReviewers) {
    const by = facts.reviewers.length === 0 ? 'nobody' : facts.reviewers.join(', ');
    findings.push(`reviewed and approved by ${by}, ${review.minimumReviewers} needed`);
  }
  if (findings.length > 0) {
    const text = `${tag} (${commit.slice(0, 12)}) has not passed review: ${findings.join('; ')}`;
    throw new StepError(STEP_ERRORS.refused, text, { findings });
  }
  return { ...facts, source: describeSource(source) };
}

const CHECKS = {
  failure: 'checks have failed',
  pending: 'checks are still running: wait for them and start again',
  none: 'no check ran on this commit',
} as const;

const describeSource = (source: ReviewProfile['source']): string => {
  switch (source.kind) {
    case 'command':
      return `command ${source.action.command[0] ?? ''}`;
    case 'github':
      return `GitHub ${source.repository}`;
    case 'gitlab':
      return `GitLab ${source.project}`;
  }
};

async function factsFrom(
  source: ReviewProfile['source'],
  target: ReviewedCommit,
  context: IntegrationContext,
): Promise<ReviewFacts> {
  switch (source.kind) {
    case 'command':
      return commandReview(source, target, context);
    case 'github':
      return githubReview(source, target, context);
    case 'gitlab':
      return gitlabReview(source, target, context);
  }
}

const commandAnswer = z.object({
  commit: z.string().regex(/^[0-9a-f]{40}([0-9a-f]{24})?$/),
  reviewed: z.boolean(),
  reviewers: z.array(z.string().max(200)).max(100),
  checks: z.enum(['success', 'failure', 'pending', 'none']),
});

async function commandReview(
  { action }: ReviewProfile['source'] & { kind: 'command' },
  { tag, commit }: ReviewedCommit,
  context: IntegrationContext,
): Promise<ReviewFacts> {
  const input = `${JSON.stringify({ ...runDocument(context.run), tag, commit })}\n`;
  const { output } = await runCommandAction(action, input, context, { commit });
  const answer = commandAnswer.safeParse(jsonOf(output));
  if (!answer.success) {
    const text =
      'the review command must print {"commit": "<40 hex digits>", "reviewed": true|false, "reviewers": ["..."], "checks": "success|failure|pending|none"} and nothing else';
    throw new StepError(STEP_ERRORS.refused, text, { findings: [text] });
  }
  const { reviewed, reviewers, checks } = answer.data;
  return {
    commit: answer.data.commit,
    checks,
    reviewers: [...new Set(reviewers)],
    objections: reviewed ? [] : ['the review command says it is not reviewed'],
  };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
