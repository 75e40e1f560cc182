/** What a profile lets the run do: `announce`, `ticket`, `steps` and whatever else runs a program or asks a server. */
import type { ConfiguredValue, JsonValue } from './values.ts';

/** Runs a program. No shell; `{{placeholders}}` (see `TEMPLATE_VARIABLES`) are replaced in arguments and environment values. */
export interface CommandAction {
  readonly kind: 'command';
  readonly command: readonly string[];
  /** `checkout`: in the release's working tree. Default: the profile's own folder. */
  readonly directory: 'profile' | 'checkout';
  readonly environment: Readonly<Record<string, ConfiguredValue>>;
  /** Milliseconds. What the program gets on standard input is given by the caller. */
  readonly timeout: number;
}

/** Sends one HTTP request. */
export interface HttpAction {
  readonly kind: 'http';
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** A reference where the address itself is a secret, as with chat webhooks. */
  readonly url: ConfiguredValue;
  readonly headers: Readonly<Record<string, ConfiguredValue>>;
  /** JSON document with placeholders; absent = the caller's JSON facts for announcements and tickets, no body for checks. */
  readonly body?: JsonValue;
  readonly expect: HttpExpectation;
  readonly timeout: number;
}

/** Appends one JSON line (or one Markdown section, by the file's ending) to a file. For trials and for teams without the other two. */
export interface FileAction {
  readonly kind: 'file';
  readonly path: string;
}

/** What an HTTP answer must be. `json` maps JSON Pointers (RFC 6901) to the values they must have. */
export interface HttpExpectation {
  readonly status: readonly number[];
  readonly json: Readonly<Record<string, JsonValue>>;
  /** Text that must occur in the body. */
  readonly contains: readonly string[];
}

export type Action = CommandAction | HttpAction | FileAction;

/** A step of the profile's own. It runs after the built-in steps of its section, recorded as `<section>.<id>`. */
export interface OwnStep {
  /** Without the section and without dots. */
  readonly id: string;
  readonly section: Section;
  readonly action: CommandAction | HttpAction;
  readonly timeout: number;
}

export type Section =
  | 'preconditions'
  | 'tooling'
  | 'backup'
  | 'dry-run'
  | 'apply'
  | 'validation'
  | 'recovery'
  | 'closeout';
