/** The four messages people send to a run, each a signal and an update of the same name with one flat JSON object. */
export const MESSAGE_NAMES = ['approve', 'reject', 'abort', 'recover'] as const;
export type MessageName = (typeof MESSAGE_NAMES)[number];

export const GATES = ['production', 'qa', 'recovery'] as const;
export type GateName = (typeof GATES)[number];

/**
 * What a person can decide at the gate `recovery`. `retry`: do the failed thing again. `continue`: a false alarm, go on,
 * recorded as overruled. `rollback`: the planned Alembic downgrade. `restore`: the backup into a fresh database, then swap.
 * `accept`: close out by policy and hand over with the state as reported.
 */
export const RECOVERY_ACTIONS = ['retry', 'continue', 'rollback', 'restore', 'accept'] as const;
export type RecoveryAction = (typeof RECOVERY_ACTIONS)[number];

export type Message =
  | {
      readonly name: 'approve';
      readonly by: string;
      readonly planDigest?: string;
      readonly gate?: GateName;
      readonly comment?: string;
      /** Armored SSH signature over the whole plan digest (64 digits, nothing after them), namespace `migration-runbook`. */
      readonly signature?: string;
    }
  | { readonly name: 'reject'; readonly by: string; readonly reason: string; readonly gate?: GateName }
  | { readonly name: 'abort'; readonly by: string; readonly reason: string }
  | { readonly name: 'recover'; readonly by: string; readonly action: RecoveryAction; readonly reason: string };

export type ParsedMessage =
  | { readonly kind: 'valid'; readonly message: Message }
  | { readonly kind: 'malformed'; readonly why: string };

/** Namespace of signatures over plan digests (`ssh-keygen -Y sign -n`): a signature given for something else is none here. */
export const SIGNATURE_NAMESPACE = 'migration-runbook';

/** Type of the failure an update's sender sees when a well-formed message is refused by policy. */
export const MESSAGE_REFUSED = 'MessageRefused';
/** Type of the failure an update's sender sees when a message is malformed; it leaves no event. */
export const MESSAGE_MALFORMED = 'MessageMalformed';

const TEXT_LIMIT = 1000;
/** An RSA key of 16384 bits signs in some 4 kB. */
const SIGNATURE_LIMIT = 8000;
const REQUIRED: Record<MessageName, readonly string[]> = {
  approve: ['by'],
  reject: ['by', 'reason'],
  abort: ['by', 'reason'],
  recover: ['by', 'action', 'reason'],
};
const OPTIONAL: Record<MessageName, readonly string[]> = {
  approve: ['planDigest', 'gate', 'comment', 'signature'],
  reject: ['gate'],
  abort: [],
  recover: [],
};

/** What `TotalPayloadConverter` returns for a payload nobody can decode. */
export interface UndecodablePayload {
  readonly undecodable: string;
}

/** Reads a message's arguments, whatever arrived. Never throws. */
export function parseMessage(name: MessageName, args: readonly unknown[]): ParsedMessage {
  const malformed = (why: string): ParsedMessage => ({ kind: 'malformed', why: `${name}: ${why}` });
  const form = `one JSON object with ${REQUIRED[name].map((field) => `"${field}"`).join(', ')}`;
  if (args.length !== 1) return malformed(`${form} is expected, got ${args.length} arguments`);
  const value = args[0];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return malformed(`${form} is expected`);
  if ('undecodable' in value) return malformed(`${form} is expected, the payload could not be decoded`);
  const fields = value as Record<string, unknown>;
  for (const field of REQUIRED[name]) {
    if (fields[field] === undefined || fields[field] === null || fields[field] === '')
      return malformed(`"${field}" is missing`);
  }
  for (const [field, content] of Object.entries(fields)) {
    if (!REQUIRED[name].includes(field) && !OPTIONAL[name].includes(field)) {
      return malformed(`"${field.slice(0, 40)}" is not a field of this message`);
    }
    if (typeof content !== 'string') return malformed(`"${field}" must be a string`);
    const limit = field === 'signature' ? SIGNATURE_LIMIT : TEXT_LIMIT;
    if (content.length > limit) return malformed(`"${field}" is longer than ${limit} characters`);
  }
  const texts = fields as Record<string, string>;
  if (texts.by!.trim() === '') return malformed('"by" is empty');
  if (texts.gate !== undefined && !(GATES as readonly string[]).includes(texts.gate)) {
    return malformed(`"gate" must be one of ${GATES.join(', ')}`);
  }
  if (name === 'recover' && !(RECOVERY_ACTIONS as readonly string[]).includes(texts.action!)) {
    return malformed(`"action" must be one of ${RECOVERY_ACTIONS.join(', ')}`);
  }
  return { kind: 'valid', message: { name, ...texts, by: texts.by!.trim() } as Message };
}

/** Two spellings of one person: case and surrounding blanks do not make somebody else. */
export const samePerson = (one: string, other: string): boolean =>
  one.trim().toLowerCase() === other.trim().toLowerCase();
