/** What keys of a profile are made of. */

/** Where a secret is found. Resolved only inside the activity that needs the value. */
export type SecretReference =
  | { readonly kind: 'command'; readonly command: readonly string[] }
  | { readonly kind: 'environment'; readonly name: string }
  | { readonly kind: 'file'; readonly path: string };

/** A literal, or a reference to a secret. */
export type ConfiguredValue = string | { readonly secret: SecretReference };

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/**
 * Placeholders that commands, URLs, headers and bodies may use as `{{name}}`. Any other name is refused when the profile is
 * loaded. `kind`, `title` and `text` (Markdown) are those of an announcement; `port` is known to `application.boot`,
 * `revision` to `alembic.commands`. One that is known but has no value yet stops the step.
 */
export const TEMPLATE_VARIABLES = [
  'service',
  'releaseTag',
  'changeTicket',
  'requestedBy',
  'runId',
  'workflowId',
  'commit',
  'outcome',
  'windowStart',
  'windowEnd',
  'checkout',
  'port',
  'revision',
  'kind',
  'title',
  'text',
] as const;

export type TemplateVariable = (typeof TEMPLATE_VARIABLES)[number];
