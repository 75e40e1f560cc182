/** `npm run bench -- NAME`: measures side by side in one run, prints one line of JSON a measure. */
import { exercise } from './exercise.ts';

export interface BenchMeasure {
  readonly measure: string;
  readonly value: number;
  readonly target: number;
  readonly met: boolean;
  readonly runs: readonly number[];
}

process.exitCode = await exercise<readonly BenchMeasure[]>('bench', (bench, measures) => {
  for (const measure of measures) console.log(JSON.stringify({ bench, ...measure }));
  return measures.length > 0;
});
