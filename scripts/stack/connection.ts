/** The parts of the embedded stack that can be asked for. `replica` implies `primary`. */
export const stackParts = ['primary', 'replica', 'staging', 'scratch', 'temporal', 's3', 'redis'] as const;
export type StackPart = (typeof stackParts)[number];

/** One PostgreSQL server. */
export interface PostgresServer {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** `postgresql://postgres:...@127.0.0.1:port/postgres` */
  readonly superuserUrl: string;
  /** Folder of the client programs of exactly this server's version: psql, pg_dump, pg_restore ... */
  readonly binDirectory: string;
  readonly dataDirectory: string;
}

/** A streaming replica; `name` is its `application_name` in `pg_stat_replication` and its slot's name on the primary. */
export interface PostgresReplica extends PostgresServer {
  readonly name: string;
}

export interface TemporalServer {
  /** `127.0.0.1:port` of the gRPC front end. */
  readonly address: string;
  readonly namespace: string;
  readonly uiUrl: string;
}

export interface S3Server {
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** Plain data, so that it can be written to the state file or handed to a test in another process. Holds passwords. */
export interface StackConnection {
  readonly directory: string;
  readonly postgres: {
    readonly primary?: PostgresServer;
    readonly replica?: PostgresReplica;
    readonly staging?: PostgresServer;
    readonly scratch?: PostgresServer;
  };
  readonly temporal?: TemporalServer;
  readonly s3?: S3Server;
  readonly redis?: { readonly url: string };
  readonly venv: { readonly python: string; readonly bin: string };
}

/** The same when every part was asked for. */
export interface FullStackConnection extends StackConnection {
  readonly postgres: Required<StackConnection['postgres']>;
  readonly temporal: TemporalServer;
  readonly s3: S3Server;
  readonly redis: { readonly url: string };
}
