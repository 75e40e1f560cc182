import { mkdir, open, readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { refusal } from '../contract/errors.ts';
import type { FileAction, JsonValue } from '../contract/profile.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { fillTemplate } from './template.ts';

export interface FileEntry {
  /** Written with the entry and looked for first: a retry does not write it again. */
  readonly key: string;
  readonly title: string;
  /** Markdown. */
  readonly text: string;
  readonly document: { readonly [key: string]: JsonValue };
}

/**
 * Appends one JSON line, or one section to a file that ends in `.md`, and has it on the disk when it returns.
 *
 * @returns what was done, for evidence
 * @throws StepError `StepRefused` when the file cannot be written
 */
export async function appendToFile(action: FileAction, entry: FileEntry, context: IntegrationContext): Promise<string> {
  const shown = fillTemplate(action.path, runValues(context.run));
  const path = resolve(context.profile.home, shown);
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const before = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    const marker = JSON.stringify(entry.key).slice(1, -1);
    if (before.includes(marker)) return 'written by an earlier attempt';
    const text = path.endsWith('.md') ? section(entry) : `${JSON.stringify({ key: entry.key, ...entry.document })}\n`;
    // A line that an earlier attempt broke off stays as it is, alone.
    const separator = before === '' || before.endsWith('\n') ? '' : '\n';
    await using file = await open(path, 'a', 0o600);
    await file.appendFile(separator + text);
    await file.sync();
    return `${Buffer.byteLength(text)} bytes appended`;
  } catch (error) {
    throw refusal([`${shown} cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown reason'})`]);
  }
}

const section = ({ key, title, text }: FileEntry): string => `## ${title}\n\n${text.trim()}\n\n<!-- ${key} -->\n\n`;
