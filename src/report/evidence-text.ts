/** A report is for reading; what is longer stands in report.json beside it. */
const LIMIT = 8000;

/** Evidence as indented JSON. */
export function evidenceText(evidence: unknown): string {
  const text = JSON.stringify(evidence, null, 2) ?? '';
  return text.length <= LIMIT
    ? text
    : `${text.slice(0, LIMIT)}\n... ${text.length - LIMIT} more characters in report.json`;
}

/** Empty objects and lists prove nothing, so there is nothing to fold out. */
export const hasEvidence = (evidence: unknown): boolean =>
  evidence !== undefined && evidence !== null && !(typeof evidence === 'object' && Object.keys(evidence).length === 0);
