export { createSecretVault, type SecretVault } from '../profile/secret-vault.ts';
