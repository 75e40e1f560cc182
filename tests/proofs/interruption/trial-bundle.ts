import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { root } from '../../../scripts/stack/layout.ts';

/** Builds the bundle of a worker that runs the product's workflows and the trials. @returns its path */
export async function buildTrialBundle(directory: string): Promise<string> {
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(import.meta.dirname, 'trial-workflows.ts'),
    payloadConverterPath: path.join(root, 'src', 'contract', 'payload-converter.ts'),
    logger: new DefaultLogger('WARN'),
  });
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, 'trial-bundle.js');
  await writeFile(file, code);
  return file;
}
