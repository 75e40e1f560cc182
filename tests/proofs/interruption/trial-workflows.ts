/** Workflows of a worker that runs trials of the upgrade beside the product's own. */
export * from '../../../src/workflows/index.ts';
export { upgradeTrial } from './upgrade-trial.ts';
