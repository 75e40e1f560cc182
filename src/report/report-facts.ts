/** The first screen of a report: how it ended, what production is, what is to be done. The same in every form. Pure. */
import type { RunReport } from '../contract/report.ts';
import { measuredText } from './measured-facts.ts';
import { type Fact, productionNow } from './production-facts.ts';
import { durationText, timeText } from './quantity.ts';
import { says, shortened } from './said-once.ts';

/** The verdict; a long cause stands beside it and only begins in it. */
export const verdictText = ({ verdict, trouble }: RunReport): string =>
  trouble === null ? verdict : shortened(verdict, [trouble], 'below');

/** What went wrong, where the verdict has not said it. */
export const troubleText = (report: RunReport): string | undefined =>
  report.trouble === null || says(verdictText(report), report.trouble) ? undefined : report.trouble;

/** What a step's error repeats of the trouble at the top is cut. */
export const errorText = (error: string, { trouble }: RunReport): string =>
  trouble !== null && says(trouble, error) ? shortened(error, [error], 'whole at the top') : error;

export function leadingFacts(report: RunReport): readonly Fact[] {
  const measured = measuredText(report);
  return [
    ...productionNow(report),
    ...(measured === undefined ? [] : [['Predicted, measured', measured] as const]),
    ['Person intervened', report.intervened ? 'yes: a retrospective is due' : 'no'],
  ];
}

/** Names and times; identifiers are left to each form, which marks them as code. */
export const timeFacts = ({ startedAt, endedAt }: RunReport): readonly Fact[] => [
  ['Started', timeText(startedAt)],
  ['Ended', `${timeText(endedAt)}, after ${durationText(Math.max(0, Date.parse(endedAt) - Date.parse(startedAt)))}`],
];
