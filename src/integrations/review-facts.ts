/** What a provider knows about a commit. */
export interface ReviewFacts {
  /** The commit the provider's tag names. */
  readonly commit: string;
  /** `success` only when every check that ran passed, and at least one ran. */
  readonly checks: 'success' | 'failure' | 'pending' | 'none';
  /** Who approved, the author not among them. */
  readonly reviewers: readonly string[];
  /** What speaks against the change: changes requested, checks that failed, by name. */
  readonly objections: readonly string[];
}

export interface ReviewedCommit {
  readonly tag: string;
  /** What the tag names in the repository the release is checked out from; 40 hexadecimal digits. */
  readonly commit: string;
}
