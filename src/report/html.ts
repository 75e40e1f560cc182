/** The report as one HTML file that needs nothing else. Pure. */
import type { SealedPlan } from '../contract/plan.ts';
import type { RunReport } from '../contract/report.ts';
import type { StepRecord } from '../contract/status.ts';
import { shownEvidence } from './evidence-text.ts';
import { STYLE } from './html-style.ts';
import { Html, html, nothing } from './html-text.ts';
import { planFacts, schemaChanges } from './plan-facts.ts';
import { durationText, sizeText, timeText } from './quantity.ts';
import { errorText, leadingFacts, timeFacts, troubleText, verdictText } from './report-facts.ts';
import { rowsText } from './backup-facts.ts';
import { recordedSender, senderText } from './recorded-sender.ts';
import {
  errorOf,
  STATUS_SYMBOLS,
  type TimelineEntry,
  type TimelineSection,
  timelineSections,
  tookText,
} from './timeline.ts';
import { wayBackRows, wayBackSentence } from './way-back-facts.ts';

/** The verdict comes first, then what is still to do, then everything that led to it. */
export function renderHtml(report: RunReport): string {
  const title = `Migration of ${report.service} to ${report.releaseTag}: ${report.outcome}`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<main>
<h1>${`Migration of ${report.service} to ${report.releaseTag}`}</h1>
${verdict(report)}
<h2>Open</h2>
${openItems(report)}
<h2>Facts</h2>
${facts(report)}
<h2>Plan</h2>
${report.plan ? planText(report.plan) : html`<p>The run ended before there was a plan.</p>`}
<h2>Decisions</h2>
${decisions(report)}
<h2>Timeline</h2>
${timeline(report)}
<h2>Backups</h2>
${backups(report)}
<h2>What a restore takes back</h2>
${wayBack(report)}
<h2>Obligations</h2>
${obligations(report)}
<h2>Refused messages</h2>
${refusals(report)}
</main>
</body>
</html>
`.text;
}

const verdict = (report: RunReport): Html =>
  html`<section class="verdict ${report.outcome}">
<p class="outcome">${report.outcome}</p>
<p>${verdictText(report)}</p>
${trouble(report)}
</section>`;

function trouble(report: RunReport): Html {
  const text = troubleText(report);
  return text === undefined ? nothing : html`<p class="dim">What went wrong: ${text}</p>`;
}

const facts = (report: RunReport): Html =>
  definitions([
    ...leadingFacts(report),
    ['Change ticket', report.changeTicket],
    ['Requested by', report.requestedBy],
    ['Commit', report.commit === null ? 'not known' : html`<code>${report.commit}</code>`],
    ...timeFacts(report),
    ['Workflow', html`<code>${report.workflowId}</code>, run <code>${report.runId}</code>`],
  ]);

function planText({ plan, digest, uri }: SealedPlan): Html {
  const changes = schemaChanges(plan);
  return html`${definitions([
    ['Digest', html`<code>${digest}</code>`],
    ['Archived as', html`<code>${uri}</code>`],
    ...planFacts(plan),
  ])}
${plan.warnings.length === 0 ? nothing : html`<ul>${plan.warnings.map((warning) => html`<li class="overruled">Warning: ${warning}</li>`)}</ul>`}
${table(
  ['Revision', 'File', 'One transaction', 'Downgrade', 'SHA-256'],
  plan.revisions.map(({ revision, file, transactional, downgrade, sha256 }) => [
    html`<code>${revision}</code>`,
    html`<code>${file}</code>`,
    transactional,
    downgrade,
    html`<code>${sha256.slice(0, 12)}</code>`,
  ]),
)}
${
  changes.length === 0
    ? html`<p>The rehearsed upgrade changes no object of the schema.</p>`
    : html`<details open><summary>${changes.length} changed objects</summary><ul>${changes.map((change) => html`<li><code>${change}</code></li>`)}</ul></details>`
}`;
}

function decisions({ decisions: records, senders = [] }: RunReport): Html {
  if (records.length === 0) return html`<p>Nobody sent a decision.</p>`;
  return html`${table(
    ['When', 'Who, as claimed', 'Sent by, as the server recorded', 'What', 'Gate', 'Reason'],
    records.map((record) => {
      const sender = recordedSender(record, senders);
      return [
        timeText(record.at),
        record.by,
        sender ? senderText(sender) : 'not known',
        record.what,
        record.gate ?? '',
        record.reason ?? '',
      ];
    }),
  )}
<p class="dim">A name is what the sender claims, an identity what their client calls itself; neither proves a person.</p>`;
}

function timeline(report: RunReport): Html {
  const sections = timelineSections(report.timeline);
  const longest = Math.max(
    1,
    ...sections.flatMap(({ entries }) =>
      entries.map((entry) => (entry.kind === 'step' ? (entry.milliseconds ?? 0) : 0)),
    ),
  );
  return html`${sections.map((section) => sectionText(section, longest, report))}`;
}

const sectionText = ({ title, milliseconds, entries }: TimelineSection, longest: number, report: RunReport): Html =>
  html`<h3>${title} <small>${durationText(milliseconds)}</small></h3>
<ul class="plain">${entries.map((entry) => entryText(entry, longest, report))}</ul>
`;

function entryText(entry: TimelineEntry, longest: number, report: RunReport): Html {
  if (entry.kind === 'wait') {
    return html`<li class="wait">${timeText(entry.since)}: waited ${durationText(entry.milliseconds)}</li>
`;
  }
  const { step, milliseconds } = entry;
  const error = errorOf(step);
  const share = Math.round((100 * (milliseconds ?? 0)) / longest);
  return html`<li class="step">
<span class="${step.status}" title="${step.status}">${STATUS_SYMBOLS[step.status]}</span>
<span>${step.summary}</span>
<span class="took">${tookText(entry)}</span>
<div>
${share > 0 ? html`<div class="bar" style="width:${share}%"></div>` : nothing}
<span class="dim"><code>${step.id}</code> · ${timeText(step.startedAt)} · <span class="${step.status}">${step.status}</span></span>
${error === undefined ? nothing : html`<p class="error">${errorText(error, report)}</p>`}
${evidence(step)}
</div>
</li>
`;
}

function evidence(step: StepRecord): Html {
  const shown = shownEvidence(step);
  switch (shown.kind) {
    case 'none':
      return nothing;
    case 'sentence':
      return html`<p class="found">${shown.text}</p>`;
    case 'document':
      return html`${shown.lead === '' ? nothing : html`<p class="found">${shown.lead}</p>`}<details><summary>Evidence</summary><pre>${shown.text}</pre></details>`;
  }
}

function backups({ backups: taken }: RunReport): Html {
  if (taken.length === 0) return html`<p>No backup was taken.</p>`;
  return html`${taken.map((backup) =>
    definitions([
      ['Taken', timeText(backup.capturedAt)],
      ['Where', html`<code>${backup.uri}</code>`],
      ['Size', `${sizeText(backup.bytes)} (dump ${sizeText(backup.dumpBytes)})`],
      ['Rows', rowsText(backup)],
      ['LSN', html`<code>${backup.lsn}</code>`],
      ['SHA-256', html`<code>${backup.sha256}</code>`],
      ['Encryption', backup.encryption],
    ]),
  )}`;
}

function wayBack({ wayBack: cost }: RunReport): Html {
  if (cost === null) return html`<p>Not worked out: no restore was considered.</p>`;
  const rows = wayBackRows(cost);
  return html`<p>${wayBackSentence(cost)}</p>${rows.length === 0 ? nothing : table(['Table', 'Inserted', 'Updated', 'Deleted'], rows)}`;
}

function obligations({ obligations: owed }: RunReport): Html {
  if (owed.length === 0) return html`<p>The run switched nothing.</p>`;
  return table(
    ['What', 'Kind', 'Since', 'State', 'Before', 'Note'],
    owed.map(({ name, kind, since, status, before, note }) => [
      name,
      kind,
      timeText(since),
      html`<strong class="${status}">${status}</strong>`,
      before.state,
      note ?? '',
    ]),
  );
}

function refusals({ refusals: { count, last }, senders = [] }: RunReport): Html {
  if (count === 0) return html`<p>None.</p>`;
  return html`${count > last.length ? html`<p>${count} in all, the last ${last.length}:</p>` : nothing}
${table(
  ['When', 'Message', 'Who, as claimed', 'Sent by, as the server recorded', 'Why'],
  last.map((refusal) => {
    const sender = recordedSender(refusal, senders);
    return [
      timeText(refusal.at),
      refusal.message,
      refusal.by ?? '',
      sender ? senderText(sender) : 'not known',
      refusal.why,
    ];
  }),
)}`;
}

const openItems = ({ openItems: items }: RunReport): Html =>
  items.length === 0
    ? html`<p>Nothing is left to do.</p>`
    : html`<ul>${items.map((item) => html`<li class="open">${item}</li>`)}</ul>`;

type Cell = string | Html;

const definitions = (entries: readonly (readonly [string, Cell])[]): Html =>
  html`<dl>${entries.map(
    ([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>
`,
  )}</dl>`;

/** On a phone a row becomes a block whose cells say their column's name. */
const table = (header: readonly string[], rows: readonly (readonly Cell[])[]): Html =>
  html`<div class="scroll"><table><thead><tr>${header.map((name) => html`<th>${name}</th>`)}</tr></thead><tbody>${rows.map(
    (cells) =>
      html`<tr>${cells.map((cell, index) => html`<td data-name="${header[index] ?? ''}">${cell}</td>`)}</tr>
`,
  )}</tbody></table></div>`;
