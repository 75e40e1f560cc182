export { databaseLease } from './database-lease.ts';
export { databaseMigration } from './database-migration.ts';
export { restoreDrill } from './restore-drill.ts';
