/** `npm run proof -- NAME`: runs one proof on real parts, prints its table and one line of JSON. */
import { exercise } from './exercise.ts';

export interface ProofCase {
  readonly name: string;
  readonly passed: boolean;
  /** What was seen. */
  readonly detail: string;
}

process.exitCode = await exercise<readonly ProofCase[]>('proofs', (proof, cases) => {
  const width = Math.max(...cases.map(({ name }) => name.length), 4);
  for (const { name, passed, detail } of cases)
    console.log(`${passed ? 'passed' : 'FAILED'}  ${name.padEnd(width)}  ${detail}`);
  const passed = cases.filter((one) => one.passed).length;
  const failed = cases.length - passed;
  console.log(JSON.stringify({ proof, passed, failed }));
  return failed === 0 && passed > 0;
});
