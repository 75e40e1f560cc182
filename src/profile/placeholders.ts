/** Checks every `{{name}}` of a profile when it is loaded, so that none turns out unknown in the middle of a run. */
import { TEMPLATE_VARIABLES } from '../contract/profile.ts';
import { type Finding, visitScalars } from './finding.ts';
import { valueAt } from './issue-text.ts';

const VARIABLES: ReadonlySet<string> = new Set(TEMPLATE_VARIABLES);
/** Keys of the document below which placeholders are filled in. */
const FILLED: ReadonlySet<string> = new Set([
  'review',
  'application',
  'rehearsal',
  'announce',
  'switches',
  'checks',
  'ticket',
  'stakeholders',
  'retrospective',
  'approvals',
  'recovery',
  'fence',
  'restore',
  'recoveryPoint',
  'steps',
]);
const MESSAGE_VARIABLES: ReadonlySet<string> = new Set(['kind', 'title', 'text']);
const PLACEHOLDER = /\{\{([^{}]*)\}\}/g;

/** Names of the placeholders in a text, whether known or not. */
export const placeholdersIn = (text: string): string[] =>
  [...text.matchAll(PLACEHOLDER)].map((match) => (match[1] ?? '').trim());

export function placeholderFindings(document: unknown): Finding[] {
  const findings: Finding[] = [];
  visitScalars(document, (scalar, path) => {
    if (typeof scalar !== 'string') return;
    for (const name of placeholdersIn(scalar)) {
      const message = objection(document, path, name);
      if (message) findings.push({ path, message });
    }
    const rest = scalar.replaceAll(PLACEHOLDER, '');
    if (rest.includes('{{') || rest.includes('}}'))
      findings.push({ path, message: 'has a placeholder that is not closed: write {{name}}' });
  });
  return findings;
}

function objection(document: unknown, path: readonly PropertyKey[], name: string): string | undefined {
  if (path.some((key) => key === 'query' || key === 'sql')) {
    return 'has a placeholder, which queries do not take: SQL and PromQL are sent as they are written';
  }
  if (path[0] === 'alembic' && path[1] === 'commands') {
    return name === 'revision' ? undefined : 'has another placeholder than {{revision}}, the only one known here';
  }
  if (!FILLED.has(String(path[0]))) return 'has a placeholder, which is not filled in here';
  if (name === 'port' && path[0] !== 'application') return 'uses {{port}}, which is known for application.boot only';
  if (name === 'revision') return 'uses {{revision}}, which is known for alembic.commands only';
  if (MESSAGE_VARIABLES.has(name) && !isAnnouncement(path)) {
    return `uses {{${name}}}, which is known for announcements, tickets and notifications only`;
  }
  if (VARIABLES.has(name) || savedBefore(document, path).has(name)) return undefined;
  const shown = /^\w{1,60}$/.test(name) ? `{{${name}}}` : 'a placeholder';
  return `uses ${shown}, which is not known. Known: ${TEMPLATE_VARIABLES.join(', ')}; in a flow also what earlier requests save`;
}

const isAnnouncement = ([first, second]: readonly PropertyKey[]): boolean =>
  ['announce', 'ticket', 'stakeholders', 'retrospective'].includes(String(first)) ||
  (first === 'approvals' && second === 'notify') ||
  (first === 'recovery' && second === 'escalate');

/** Names saved by the requests before the one the path leads into. */
function savedBefore(document: unknown, path: readonly PropertyKey[]): Set<string> {
  const at = path.lastIndexOf('requests');
  const index = path[at + 1];
  const names = new Set<string>();
  if (at < 0 || typeof index !== 'number') return names;
  for (let earlier = 0; earlier < index; earlier += 1) {
    const saved = valueAt(document, [...path.slice(0, at + 1), earlier, 'save']);
    if (typeof saved === 'object' && saved !== null) for (const name of Object.keys(saved)) names.add(name);
  }
  return names;
}
