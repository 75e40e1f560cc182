/** The report as Markdown (GitHub flavored), for tickets and repositories. Pure. */
import type { SealedPlan } from '../contract/plan.ts';
import type { RunReport } from '../contract/report.ts';
import type { StepRecord } from '../contract/status.ts';
import { shownEvidence } from './evidence-text.ts';
import { code, fenced, list, plain, table } from './markdown-text.ts';
import { planFacts, schemaChanges } from './plan-facts.ts';
import { durationText, sizeText, timeText } from './quantity.ts';
import { errorText, leadingFacts, timeFacts, troubleText, verdictText } from './report-facts.ts';
import { rowsText } from './backup-facts.ts';
import { recordedSender, senderText } from './recorded-sender.ts';
import { errorOf, STATUS_SYMBOLS, type TimelineSection, timelineSections, tookText } from './timeline.ts';
import { wayBackRows, wayBackSentence } from './way-back-facts.ts';

/** The verdict comes first, then what is still to do, then everything that led to it. */
export function renderMarkdown(report: RunReport): string {
  return `${[
    `# Migration of ${plain(report.service)} to ${plain(report.releaseTag)}: ${report.outcome}`,
    `**${plain(verdictText(report))}**`,
    ...trouble(report),
    '## Open',
    openItems(report),
    '## Facts',
    facts(report),
    '## Plan',
    report.plan ? planText(report.plan) : 'The run ended before there was a plan.',
    '## Decisions',
    decisions(report),
    '## Timeline',
    ...timelineSections(report.timeline).map((section) => sectionText(section, report)),
    '## Backups',
    backups(report),
    '## What a restore takes back',
    wayBack(report),
    '## Obligations',
    obligations(report),
    '## Refused messages',
    refusals(report),
  ].join('\n\n')}\n`;
}

function trouble(report: RunReport): readonly string[] {
  const text = troubleText(report);
  return text === undefined ? [] : [`**What went wrong:** ${plain(text)}`];
}

const facts = (report: RunReport): string =>
  table(
    ['', ''],
    [
      ...leadingFacts(report).map(([name, text]) => [name, plain(text)]),
      ['Change ticket', plain(report.changeTicket)],
      ['Requested by', plain(report.requestedBy)],
      ['Commit', report.commit === null ? 'not known' : code(report.commit)],
      ...timeFacts(report),
      ['Workflow', `${code(report.workflowId)}, run ${code(report.runId)}`],
    ],
  );

function planText({ plan, digest, uri }: SealedPlan): string {
  const changes = schemaChanges(plan);
  return [
    `Digest ${code(digest)}, archived as ${code(uri)}.`,
    table(
      ['', ''],
      planFacts(plan).map(([name, text]) => [name, plain(text)]),
    ),
    table(
      ['Revision', 'File', 'One transaction', 'Downgrade', 'SHA-256'],
      plan.revisions.map(({ revision, file, transactional, downgrade, sha256 }) => [
        code(revision),
        code(file),
        plain(transactional),
        plain(downgrade),
        code(sha256.slice(0, 12)),
      ]),
    ),
    changes.length > 0 ? list(changes.map(plain)) : 'The rehearsed upgrade changes no object of the schema.',
    ...plan.warnings.map((warning) => `> **Warning:** ${plain(warning)}`),
  ].join('\n\n');
}

function decisions({ decisions: records, senders = [] }: RunReport): string {
  if (records.length === 0) return 'Nobody sent a decision.';
  return [
    table(
      ['When', 'Who, as claimed', 'Sent by, as the server recorded', 'What', 'Gate', 'Reason'],
      records.map((record) => {
        const sender = recordedSender(record, senders);
        return [
          timeText(record.at),
          plain(record.by),
          sender ? plain(senderText(sender)) : 'not known',
          plain(record.what),
          plain(record.gate ?? ''),
          plain(record.reason ?? ''),
        ];
      }),
    ),
    'A name is what the sender claims, an identity what their client calls itself; neither proves a person.',
  ].join('\n\n');
}

function sectionText({ title, milliseconds, entries }: TimelineSection, report: RunReport): string {
  const lines = entries.map((entry) => {
    if (entry.kind === 'wait') return `- ${timeText(entry.since)} waited ${durationText(entry.milliseconds)}`;
    const { step } = entry;
    const error = errorOf(step);
    return [
      `- ${timeText(step.startedAt)} ${STATUS_SYMBOLS[step.status]} ${code(step.id)} ${plain(step.summary)}: **${step.status}**, ${tookText(entry)}${error === undefined ? '' : ` — ${plain(errorText(error, report))}`}`,
      ...evidence(step),
    ].join('\n');
  });
  return [`### ${title} (${durationText(milliseconds)})`, lines.join('\n')].join('\n\n');
}

function evidence(step: StepRecord): readonly string[] {
  const shown = shownEvidence(step);
  switch (shown.kind) {
    case 'none':
      return [];
    case 'sentence':
      return [`  - ${plain(shown.text)}`];
    case 'document':
      return [...(shown.lead === '' ? [] : [`  - ${plain(shown.lead)}`]), folded(shown.text)];
  }
}

/** Indented, so that it belongs to the list's item. */
const folded = (text: string): string =>
  ['', '<details><summary>Evidence</summary>', '', ...fenced(text, 'json').split('\n'), '', '</details>', '']
    .map((line) => (line === '' ? '' : `  ${line}`))
    .join('\n');

function backups({ backups: taken }: RunReport): string {
  if (taken.length === 0) return 'No backup was taken.';
  return table(
    ['Taken', 'Where', 'Size', 'Rows', 'LSN', 'SHA-256', 'Encryption'],
    taken.map((backup) => [
      timeText(backup.capturedAt),
      code(backup.uri),
      `${sizeText(backup.bytes)} (dump ${sizeText(backup.dumpBytes)})`,
      rowsText(backup),
      code(backup.lsn),
      code(backup.sha256),
      plain(backup.encryption),
    ]),
  );
}

function wayBack({ wayBack: cost }: RunReport): string {
  if (cost === null) return 'Not worked out: no restore was considered.';
  const rows = wayBackRows(cost);
  return [
    plain(wayBackSentence(cost)),
    ...(rows.length === 0
      ? []
      : [
          table(
            ['Table', 'Inserted', 'Updated', 'Deleted'],
            rows.map((cells) => cells.map(plain)),
          ),
        ]),
  ].join('\n\n');
}

function obligations({ obligations: owed }: RunReport): string {
  if (owed.length === 0) return 'The run switched nothing.';
  return table(
    ['What', 'Kind', 'Since', 'State', 'Before', 'Note'],
    owed.map(({ name, kind, since, status, before, note }) => [
      plain(name),
      plain(kind),
      timeText(since),
      `**${plain(status)}**`,
      plain(before.state),
      plain(note ?? ''),
    ]),
  );
}

function refusals({ refusals: { count, last }, senders = [] }: RunReport): string {
  if (count === 0) return 'None.';
  return [
    ...(count > last.length ? [`${count} in all, the last ${last.length}:`] : []),
    table(
      ['When', 'Message', 'Who, as claimed', 'Sent by, as the server recorded', 'Why'],
      last.map((refusal) => {
        const sender = recordedSender(refusal, senders);
        return [
          timeText(refusal.at),
          plain(refusal.message),
          plain(refusal.by ?? ''),
          sender ? plain(senderText(sender)) : 'not known',
          plain(refusal.why),
        ];
      }),
    ),
  ].join('\n\n');
}

const openItems = ({ openItems: items }: RunReport): string =>
  items.length === 0 ? 'Nothing is left to do.' : list(items.map((item) => `[ ] ${plain(item)}`));
