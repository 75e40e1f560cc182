export { addScenarioRows, deployExample, resetExample, stopExample } from './example/deploy.ts';
export type { Example, ExampleOptions } from './example/deploy.ts';
