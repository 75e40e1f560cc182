import { describe, expect, test } from 'vitest';
import type { RunReport } from '../../src/contract/report.ts';
import { renderHtml } from '../../src/report/html.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import { durationText, sizeText, timeText } from '../../src/report/quantity.ts';
import { sectionTitle, timelineSections } from '../../src/report/timeline.ts';
import { at, sample } from './report-sample.ts';

const HEADINGS = ['Plan', 'Decisions', 'Timeline', 'Backups', 'Obligations', 'Refused messages', 'Open'];

/** The same report with something added to every text that a person or program wrote. */
function withEveryText(value: unknown, add: string): unknown {
  if (typeof value === 'string') return /^\d{4}-\d\d-\d\dT/.test(value) ? value : `${value}${add}`;
  if (Array.isArray(value)) return value.map((entry) => withEveryText(entry, add));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, entry]) => [
      key,
      ['status', 'outcome', 'via', 'kind', 'name', 'what', 'by', 'claimed', 'message', 'id'].includes(key)
        ? entry
        : withEveryText(entry, add),
    ]),
  );
}

const hostile = (add: string): RunReport => withEveryText(sample, add) as RunReport;

/** Open and close tags in order, without their attributes' values. */
const tagsOf = (text: string): string[] =>
  [...text.matchAll(/<(\/?[a-z][a-z0-9]*)((?:\s[^<>"]*(?:"[^"]*")?)*)>/gi)].map(([, name = '']) => name.toLowerCase());

describe('the HTML report', () => {
  const page = renderHtml(sample);

  test('says the verdict first, then the plan, decisions, timeline, obligations, refusals and what is open', () => {
    const order = [sample.verdict, ...HEADINGS.map((name) => `>${name}</h2>`)].map((text) => page.indexOf(text));
    expect(order).not.toContain(-1);
    expect(order).toEqual(order.toSorted((one, other) => one - other));
  });

  test('needs nothing from elsewhere and runs nothing', () => {
    expect(page).not.toMatch(/<(script|link|img|iframe|object|embed|form|base)\b/i);
    expect(page).not.toMatch(/\b(src|srcset|action)=|url\(|@import|\son[a-z]+=|javascript:/i);
    expect([...page.matchAll(/href="([^"]*)"/g)].map(([, target]) => target)).toEqual(['#open']);
  });

  test('closes every element it opens', () => {
    const open: string[] = [];
    const wrong: string[] = [];
    for (const tag of tagsOf(page).filter((name) => name !== 'meta')) {
      if (!tag.startsWith('/')) open.push(tag);
      else if (open.pop() !== tag.slice(1)) wrong.push(tag);
    }
    expect(wrong).toEqual([]);
    expect(open).toEqual([]);
  });

  test.each([
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    '</style></title></pre></details>',
    '<!--',
    '&lt;b&gt;',
    '\u0000\u0008',
  ])('keeps its structure whatever people wrote: %j', (text) => {
    const written = renderHtml(hostile(text));
    expect(tagsOf(written)).toEqual(tagsOf(page));
    expect(written).not.toContain('<script');
    expect(written).not.toMatch(/[^\P{Cc}\n]/u);
  });

  test('folds evidence, and leaves out what is empty', () => {
    expect(page.match(/<details><summary>Evidence<\/summary>/g)).toHaveLength(2);
    expect(page).toContain('&#34;rows&#34;: 20123');
  });

  test('is readable on a phone, in the dark and on paper', () => {
    expect(page).toContain('name="viewport"');
    expect(page).toContain('prefers-color-scheme: dark');
    expect(page).toContain('@media print');
  });
});

describe('the Markdown report', () => {
  const text = renderMarkdown(sample);

  test('says the verdict first, then the plan, decisions, timeline, obligations, refusals and what is open', () => {
    const order = ['**Restored', ...HEADINGS.map((name) => `\n## ${name}\n`)].map((part) => text.indexOf(part));
    expect(order).not.toContain(-1);
    expect(order).toEqual(order.toSorted((one, other) => one - other));
  });

  test.each([
    '|',
    '| --- |',
    '\n# Heading\n',
    '```',
    '`',
    '<details>',
    '[x](javascript:x)',
    '\n\n| a | b |\n| --- | --- |',
  ])('keeps its tables and headings whatever people wrote: %j', (add) => {
    const shape = (markdown: string) =>
      withoutFences(markdown)
        .split('\n')
        .filter((line) => /^(\||#|<|- |\s*<)/.test(line))
        .map((line) => (line.startsWith('|') ? columns(line) : (/^(#+|\s*<\/?\w+|- )/.exec(line)?.[0] ?? '')));
    expect(shape(renderMarkdown(hostile(add)))).toEqual(shape(text));
  });

  test('closes every fence, also around text that holds one', () => {
    const written = withoutFences(renderMarkdown(hostile('\n```\n')));
    expect(written).not.toContain('"rows": 20123');
    expect(written).toContain('\n## Open\n');
  });
});

describe('both reports', () => {
  test.each([
    ['HTML', renderHtml],
    ['Markdown', renderMarkdown],
  ])('%s names the sender the server recorded beside the one that is claimed', (_form, render) => {
    const text = render(sample);
    expect(text).toContain('jwt:erin, erin@laptop (update)');
    expect(text).toContain('dana@desk (signal)');
    // Nothing in the history fits the second decision.
    expect(text.match(/not known/g)).toHaveLength(1);
  });

  test.each([
    ['HTML', renderHtml],
    ['Markdown', renderMarkdown],
  ])('%s tells of a run that was refused before it began', (_form, render) => {
    const text = render({
      ...sample,
      outcome: 'aborted',
      commit: null,
      plan: null,
      backups: [],
      timeline: [],
      decisions: [],
      obligations: [],
      refusals: { count: 0, last: [] },
      openItems: [],
      trouble: null,
      intervened: false,
    });
    expect(text).toContain('The run ended before there was a plan.');
    expect(text).toContain('Nothing is left to do.');
    expect(text).toContain('No backup was taken.');
  });

  test('cut long evidence, and say where the rest is', () => {
    const report = { ...sample, timeline: [{ ...sample.timeline[0]!, evidence: { log: 'x'.repeat(50_000) } }] };
    expect(renderHtml(report).length).toBeLessThan(30_000);
    expect(renderHtml(report)).toContain('more characters in report.json');
    expect(renderMarkdown(report)).toContain('more characters in report.json');
  });
});

describe('the timeline', () => {
  test('goes by sections of the document, with what each step and section took', () => {
    const sections = timelineSections(sample.timeline);
    expect(sections.map(({ title }) => title)).toEqual([
      '1 Preconditions',
      '3 Backup',
      '5 Approval',
      '5 Apply in production',
      '7 Rollback and restoration',
      '8 Closeout',
    ]);
    expect(sections[1]?.entries).toEqual([{ kind: 'step', step: sample.timeline[1], milliseconds: 4200 }]);
  });

  test('shows where nothing ran because people or the window were waited for', () => {
    const waits = timelineSections(sample.timeline).flatMap(({ title, entries }) =>
      entries.flatMap((entry) => (entry.kind === 'wait' ? [[title, entry.since, entry.milliseconds]] : [])),
    );
    expect(waits).toEqual([
      ['5 Approval', at(5), 300_000],
      ['5 Apply in production', at(308), 92_000],
    ]);
  });

  test('knows a step that has not ended', () => {
    const [section] = timelineSections([{ id: 'backup.capture', summary: '', startedAt: at(0), status: 'running' }]);
    expect(section?.entries).toMatchObject([{ kind: 'step', milliseconds: undefined }]);
  });

  test.each([
    ['dry-run.staging', '4 Dry run'],
    ['gate.recovery/notify#2', '7 Decision of a person'],
    ['recovery.evaluate#3', '7 Rollback and restoration'],
    ['elsewhere.step', 'elsewhere'],
  ])('puts %s under %s', (id, title) => expect(sectionTitle(id)).toBe(title));
});

describe('quantities', () => {
  test.each([
    [0, '0 ms'],
    [999.4, '999 ms'],
    [1000, '1.0 s'],
    [59_949, '59.9 s'],
    [59_950, '1 min'],
    [61_000, '1 min 01 s'],
    [3_599_600, '1 h'],
    [7_500_000, '2 h 05 min'],
    [172_800_000, '2 d'],
  ])('%d milliseconds are %s', (milliseconds, text) => expect(durationText(milliseconds)).toBe(text));

  test.each([
    [0, '0 bytes'],
    [999, '999 bytes'],
    [1000, '1.0 kB'],
    [2_500_000, '2.5 MB'],
    [3_200_000_000_000_000, '3200.0 TB'],
  ])('%d bytes are %s', (bytes, text) => expect(sizeText(bytes)).toBe(text));

  test('times are in UTC, and what is no time stays as it is', () => {
    expect(timeText('2026-11-22T23:30:05+01:00')).toBe('2026-11-22 22:30:05 UTC');
    expect(timeText('soon')).toBe('soon');
  });
});

const columns = (row: string): number => row.replaceAll(/\\\||\\\\/g, '').split('|').length;

function withoutFences(markdown: string): string {
  const kept: string[] = [];
  let fence: string | undefined;
  for (const line of markdown.split('\n')) {
    const run = /^ *(`{3,})/.exec(line)?.[1];
    if (fence === undefined && run !== undefined) fence = run;
    else if (fence !== undefined && run === fence && line.trim() === fence) fence = undefined;
    else if (fence === undefined) kept.push(line);
  }
  return kept.join('\n');
}
