/** The keys `checks`, `monitoring`, `schema`, and the flows of `application`: how it is known that the service works. */
import type { CommandAction, HttpAction, HttpExpectation } from './actions.ts';
import type { ConfiguredValue, JsonValue, SecretReference } from './values.ts';

/** One HTTP request of a flow; `save` keeps values of the JSON answer (by JSON Pointer) as `{{name}}` for later requests. */
export interface FlowRequest {
  readonly name: string;
  readonly method: HttpAction['method'];
  /** Path on the application's base URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, ConfiguredValue>>;
  readonly json?: JsonValue;
  /** multipart/form-data upload; `content` is sent as the file's bytes. */
  readonly upload?: {
    readonly field: string;
    readonly fileName: string;
    readonly contentType: string;
    readonly content: string;
  };
  /** Values sent in `json` that must not appear anywhere: pointer -> secret. */
  readonly secrets: Readonly<Record<string, SecretReference>>;
  readonly expect: HttpExpectation;
  readonly save: Readonly<Record<string, string>>;
  readonly timeout: number;
  /** GET only: an answer that is not as expected is asked for again this long, for results that take their time. 0 = once. */
  readonly retryFor: number;
}

export interface Flow {
  readonly name: string;
  readonly requests: readonly FlowRequest[];
}

/** One check of the running production service. */
export type Check = { readonly name: string } & (
  | { readonly kind: 'command'; readonly action: CommandAction }
  | { readonly kind: 'http'; readonly action: HttpAction }
  /** One SQL query on production as the backup role, in a read-only transaction; the first value of the first row must equal `expect`. */
  | { readonly kind: 'sql'; readonly query: string; readonly expect: JsonValue; readonly timeout: number }
  /** A flow against the running service. */
  | { readonly kind: 'flow'; readonly baseUrl: string; readonly flow: Flow }
);

/** A number read before and after, compared by `limit`. */
export interface Measure {
  readonly name: string;
  readonly source:
    | { readonly kind: 'sql'; readonly query: string }
    /** Milliseconds of an HTTP request, or the number at `pointer` of its JSON answer. */
    | {
        readonly kind: 'http';
        readonly url: string;
        readonly pointer?: string;
        readonly headers: Readonly<Record<string, ConfiguredValue>>;
      }
    /** Instant query; `url` is Prometheus' base address, without `/api/v1/query`. */
    | {
        readonly kind: 'prometheus';
        readonly url: string;
        readonly query: string;
        readonly headers: Readonly<Record<string, ConfiguredValue>>;
      }
    /** Deadlocks counted by `pg_stat_database` for the production database. */
    | { readonly kind: 'deadlocks' };
  /** The value after may not exceed baseline * ratio + absolute. */
  readonly limit: { readonly ratio: number; readonly absolute: number };
  /** How often it is sampled on each side; the median counts. */
  readonly samples: number;
}

export interface SchemaExpectation {
  /** Dotted `schema.table`, `schema.table.column`, `schema.index` ... as in the object map's names, with its kind. */
  readonly kind: 'table' | 'column' | 'index' | 'constraint' | 'type';
  readonly name: string;
  /** Only expected for releases whose tag matches this pattern (glob); absent = always. */
  readonly releases?: string;
}
