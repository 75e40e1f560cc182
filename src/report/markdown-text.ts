/** Text into Markdown without it becoming Markdown: what people and programs wrote must not format or embed. */

/** One line of ordinary text, also inside a table cell. */
export const plain = (text: string): string =>
  text
    .replaceAll(/[\\`*_{}[\]<>|~#&]/g, String.raw`\$&`)
    .replaceAll(/\s*[\r\n]+\s*/g, ' ')
    .replace(/^(\s*)([-+]|\d+(?=[.)]))/, String.raw`$1\$2`);

/** A code span; inside a table cell the bar is escaped too. */
export function code(text: string): string {
  const content = text.replaceAll(/\s*[\r\n]+\s*/g, ' ').replaceAll('|', String.raw`\|`);
  if (content === '') return '';
  const ticks = '`'.repeat(longestRun(content) + 1);
  const edge = content.startsWith('`') || content.endsWith('`') ? ' ' : '';
  return `${ticks}${edge}${content}${edge}${ticks}`;
}

/** A fenced block that its content cannot close. */
export function fenced(text: string, language = ''): string {
  const ticks = '`'.repeat(Math.max(3, longestRun(text) + 1));
  return `${ticks}${language}\n${text}\n${ticks}`;
}

/** @param rows of cells that are Markdown already */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

export const list = (items: readonly string[]): string => items.map((item) => `- ${item}`).join('\n');

const longestRun = (text: string): number => Math.max(0, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
