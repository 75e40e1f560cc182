/** The keys `review` and `approvals`. */
import type { Action, CommandAction } from './actions.ts';
import type { SecretReference } from './values.ts';

export interface ReviewProfile {
  readonly source: /** Prints `{"commit","reviewed","reviewers":[..],"checks":"success|failure|pending"}`. */
    | { readonly kind: 'command'; readonly action: CommandAction }
    | { readonly kind: 'github'; readonly apiUrl: string; readonly repository: string; readonly token: SecretReference }
    | { readonly kind: 'gitlab'; readonly apiUrl: string; readonly project: string; readonly token: SecretReference };
  readonly minimumReviewers: number;
}

export interface ApprovalProfile {
  readonly required: number;
  /** Who may approve; empty = anyone but the requester. */
  readonly approvers: readonly string[];
  /** The gate `production` aborts after this. */
  readonly timeout: number;
  readonly remindEvery: number;
  /** How approvers and operators are told. */
  readonly notify: readonly Action[];
  readonly signers: readonly Signer[];
  /** `required`: an approval without a valid signature is refused. */
  readonly signatures: 'optional' | 'required';
}

/** Who may sign approvals, and with which key. */
export interface Signer {
  readonly name: string;
  /** OpenSSH public key: `ssh-ed25519 AAAA...`. */
  readonly key: string;
}
