/** One revision of an Alembic graph, as the service's own Python tells it. */
export interface AlembicRevision {
  readonly revision: string;
  readonly downRevisions: readonly string[];
  readonly dependsOn: readonly string[];
  readonly branchLabels: readonly string[];
  /** Path relative to the checkout. */
  readonly file: string;
  readonly sha256: string;
  readonly doc: string;
  /** `no`: an autocommit block or a commit of its own was found, so a failure inside it takes back only a part. */
  readonly transactional: 'yes' | 'no' | 'unknown';
  /** What can be left of it when it is interrupted. `indexes`: it only creates and drops indexes; `anything`: rows too. */
  readonly outsideTransaction: 'nothing' | 'indexes' | 'anything';
  /** As `transactional`, of its downgrade. */
  readonly downgradeTransactional: 'yes' | 'no' | 'unknown';
  readonly downgrade: 'present' | 'absent' | 'empty' | 'raises';
  /** What its upgrade calls, in order of the source, without repetition: `add_column`, `execute` ... */
  readonly operations: readonly string[];
}

export interface AlembicGraph {
  readonly alembic: string;
  readonly sqlalchemy: string;
  readonly python: string;
  readonly heads: readonly string[];
  readonly bases: readonly string[];
  readonly revisions: readonly AlembicRevision[];
}
