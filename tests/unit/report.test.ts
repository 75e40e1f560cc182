import { describe, expect, test } from 'vitest';
import type { RunReport } from '../../src/contract/report.ts';
import { renderHtml } from '../../src/report/html.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import { durationText, sizeText, timeText } from '../../src/report/quantity.ts';
import { sectionTitle, timelineSections } from '../../src/report/timeline.ts';
import { at, sample } from './report-sample.ts';

const HEADINGS = ['Open', 'Facts', 'Plan', 'Decisions', 'Timeline', 'Backups', 'Obligations', 'Refused messages'];

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

/** Its verdict does not say what went wrong, so that both are shown. */
const inTwoTexts: RunReport = { ...sample, verdict: 'Restored: production is the backup.' };

const hostile = (add: string): RunReport => withEveryText(inTwoTexts, add) as RunReport;

/** Open and close tags in order, without their attributes' values. */
const tagsOf = (text: string): string[] =>
  [...text.matchAll(/<(\/?[a-z][a-z0-9]*)((?:\s[^<>"]*(?:"[^"]*")?)*)>/gi)].map(([, name = '']) => name.toLowerCase());

describe('the HTML report', () => {
  const page = renderHtml(sample);

  test('says the verdict first, then what is open, the facts, plan, decisions, timeline, obligations and refusals', () => {
    const order = [sample.verdict, ...HEADINGS.map((name) => `>${name}</h2>`)].map((text) => page.indexOf(text));
    expect(order).not.toContain(-1);
    expect(order).toEqual(order.toSorted((one, other) => one - other));
  });

  test('needs nothing from elsewhere and runs nothing', () => {
    expect(page).not.toMatch(/<(script|link|img|iframe|object|embed|form|base)\b/i);
    expect(page).not.toMatch(/\b(src|srcset|action)=|url\(|@import|\son[a-z]+=|javascript:/i);
    expect([...page.matchAll(/href="([^"]*)"/g)].map(([, target]) => target)).toEqual([]);
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
    expect(tagsOf(written)).toEqual(tagsOf(renderHtml(inTwoTexts)));
    expect(written).not.toContain('<script');
    expect(written).not.toMatch(/[^\P{Cc}\n]/u);
  });

  test('folds long evidence, and leaves out what is empty', () => {
    expect(page.match(/<details><summary>Evidence<\/summary>/g)).toHaveLength(1);
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

  test('says the verdict first, then what is open, the facts, plan, decisions, timeline, obligations and refusals', () => {
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
    expect(shape(renderMarkdown(hostile(add)))).toEqual(shape(renderMarkdown(inTwoTexts)));
  });

  test('closes every fence, also around text that holds one', () => {
    const written = withoutFences(renderMarkdown(hostile('\n```\n')));
    expect(written).not.toContain('"rows": 20123');
    expect(written).toContain('\n## Refused messages\n');
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

describe.each([
  ['HTML', (report: RunReport) => renderHtml(report).replaceAll(/<[^>]+>/g, ' ')],
  ['Markdown', (report: RunReport) => renderMarkdown(report).replaceAll('\\', '').replaceAll('|', ' ')],
])('the first screen of a report in %s', (_form, textOf) => {
  const read = (report: RunReport): string => textOf(report).replaceAll(/\s+/g, ' ');
  const firstScreen = (report: RunReport): string => read(report).split(/(?:## )?Plan (?=Digest|The run)/)[0]!;

  test('tells what production is now, what is switched, and what is still to do', () => {
    const text = firstScreen(sample);
    expect(text).toContain(
      'Production now database whisper, the restored backup, at 0002; the replaced database is kept as whisper_before_1 until 2026-11-23 22:00:00 UTC',
    );
    expect(text).toContain('Switched by the run all 1 put back as before');
    expect(text).toContain('the stakeholders could not be told');
  });

  test('tells of a fence that is still up, and of what was not put back', () => {
    const [deployments] = sample.obligations;
    const text = firstScreen({
      ...sample,
      outcome: 'handed-over',
      timeline: [
        {
          id: 'recovery.evaluate#2',
          summary: '',
          startedAt: at(310),
          endedAt: at(311),
          status: 'done',
          evidence: {
            reality: { kind: 'partly-applied', revisions: ['0003'], clean: 'no', why: '' },
            versionRows: ['0003'],
          },
        },
      ],
      obligations: [
        { ...deployments!, status: 'kept' },
        { ...deployments!, name: 'jobs', status: 'open' },
        { ...deployments!, name: 'write fence', kind: 'fence', status: 'engaged' },
      ],
    });
    expect(text).toContain(
      'Production now database whisper, upgraded in part (0003), version table at 0003, as read at 2026-11-22 22:05:11 UTC; STILL READ-ONLY: the fence is up',
    );
    expect(text).toContain('NOT put back: jobs, write fence; left on purpose: deployments; 0 put back as before');
  });

  test('says of a rollback what is as before: objects, and rows where they were compared', () => {
    const done = (id: string, evidence: object) =>
      ({ id, summary: '', startedAt: at(310), endedAt: at(311), status: 'done', evidence }) as const;
    const rollback = done('recovery.rollback', { versionRows: ['0002'], objects: 'equal', reordered: [] });
    const rows = done('recovery.rollback/rows', { findings: [], tables: 3, rows: 7, samples: 1, largeObjects: 0 });
    const textOf = (timeline: RunReport['timeline']) => firstScreen({ ...sample, outcome: 'rolled-back', timeline });
    const objects = 'Production now database whisper, back at 0002, its objects equal to before';
    expect(textOf([rollback])).toContain(objects);
    expect(textOf([rollback])).not.toContain('rows equal');
    expect(textOf([rollback, rows])).toMatch(
      /its objects equal to before; rows equal to the backup.{1,5}s \(of 1 large table\(s\) a sample\)/,
    );
    expect(textOf([rollback, { ...rows, status: 'failed' }])).not.toContain('rows equal');
    const other = done('recovery.rollback/rows#2', { findings: ['table public.notes: other rows'], samples: 0 });
    const read = done('recovery.evaluate#2', { reality: { kind: 'unchanged' }, versionRows: ['0002'] });
    const handedOver = firstScreen({ ...sample, outcome: 'handed-over', timeline: [rollback, rows, read, other] });
    expect(handedOver).toContain('unchanged, version table at 0002');
    expect(handedOver).toContain('ROWS ARE NOT those of the backup');
  });

  test('compares what was predicted with what it took, repetitions by their last', () => {
    const [, , , upgrade] = sample.timeline;
    expect(firstScreen(sample)).toContain(
      'Predicted, measured upgrade 12.0 s predicted, 2.0 s measured; restore 16.0 s predicted, 40.5 s measured',
    );
    const again = {
      ...upgrade!,
      id: 'apply.upgrade#2',
      startedAt: at(310),
      endedAt: at(315),
      status: 'stopped' as const,
    };
    expect(firstScreen({ ...sample, timeline: [upgrade!, again] })).toContain(
      'Predicted, measured upgrade 12.0 s predicted, 5.0 s measured (stopped)',
    );
  });

  test('says a long cause in full once, and one that the verdict holds not again', () => {
    expect(read(sample)).not.toContain('What went wrong');
    const blockers = Array.from({ length: 9 }, (_, pid) => `pid 471${pid} (reporting), role "analytics", idle`).join(
      '; ',
    );
    const cause = `apply.upgrade failed: no lock within 5 tries; in the way: ${blockers}`;
    const report: RunReport = {
      ...sample,
      verdict: `Aborted (${cause}): production is unchanged.`,
      trouble: cause,
      timeline: [{ ...sample.timeline[3]!, status: 'failed', error: cause.replace('apply.upgrade failed: ', '') }],
    };
    const text = read(report);
    expect(text.split('pid 4718')).toHaveLength(2);
    expect(text).toMatch(
      /Aborted \(apply\.upgrade failed: no lock within 5 tries; .* … \(below\)\): production is unchanged\./,
    );
    expect(text).toMatch(/no lock within 5 tries; .* … \(whole at the top\)/);
  });

  test('does not repeat several findings that the verdict numbers', () => {
    const text = read({
      ...sample,
      verdict:
        'Aborted (preconditions.access failed: 2 findings: (1) no CREATEDB (2) no TLS): production is unchanged.',
      trouble: 'no CREATEDB; no TLS',
    });
    expect(text).not.toContain('What went wrong');
  });
});

describe('evidence in a report', () => {
  test('is a sentence where one will do', () => {
    const text = renderMarkdown({
      ...sample,
      timeline: [
        {
          ...sample.timeline[0]!,
          evidence: {
            measures: [
              { name: 'API latency (ms)', value: 57 },
              { name: 'deadlocks', value: 0 },
            ],
          },
        },
        {
          ...sample.timeline[0]!,
          evidence: { state: 'engaged', detail: { action: 'exit code 0', confirmed: 'by its state' } },
        },
        {
          ...sample.timeline[0]!,
          evidence: { standbys: [{ name: 'replica1', state: 'streaming', lagBytes: 0, lagMilliseconds: 12 }] },
        },
        {
          ...sample.timeline[0]!,
          evidence: { log: { uri: 's3://b/log', sha256: 'a'.repeat(64), bytes: 2400 }, held: true, unknown: [] },
        },
      ],
    });
    expect(text).toContain('\n  - measures API latency (ms): 57; deadlocks: 0\n');
    expect(text).toContain('\n  - engaged; action exit code 0, confirmed by its state\n');
    expect(text).toContain('\n  - standbys replica1: streaming, lag 0 bytes, lag 12 ms\n');
    expect(text).toContain('\n  - log s3://b/log (2.4 kB); held yes; unknown none\n');
    expect(text).not.toContain('<details>');
  });

  test('is led by its short facts where it is long', () => {
    expect(renderMarkdown(sample)).toContain(
      '  - fresh database whisper\\_restore\\_1; rows 20123; compared (checksums 6, samples 0, large objects 2); timings (data 30.0 s, indexes 5.0 s, compare 4.0 s)\n',
    );
  });

  test('leaves the profile to report.json, and names its digest', () => {
    for (const text of [renderMarkdown(sample), renderHtml(sample)]) {
      expect(text).not.toContain('only_in_the_profile');
      expect(text.replaceAll('\\', '')).not.toContain('only_in_the_profile');
      expect(text).toContain('profile of whisper-transcriber, whole in report.json; profile digest 111111111111');
    }
  });
});

describe('the timeline', () => {
  test('knows the step that writes the report, and an error that is no news', () => {
    const [writing, stopped] = [
      { id: 'closeout.record/report#2', summary: 'Archive', startedAt: at(0), status: 'running' as const },
      { ...sample.timeline[3]!, status: 'stopped' as const, error: 'stopped' },
    ];
    const text = renderMarkdown({ ...sample, timeline: [stopped, writing] });
    expect(text).toContain('**running**, writes this report');
    expect(text).toMatch(/\*\*stopped\*\*, 2\.0 s\n/);
  });

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
