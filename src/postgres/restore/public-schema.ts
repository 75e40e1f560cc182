/** Before PostgreSQL 15 a dump carries the rights on schema `public`, and neither its owner nor its comment. */
import type { Client } from 'pg';
import { sqlName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';

interface PublicSchema {
  readonly owner: string;
  /** Who owns it in `template0`, and so in every fresh database. */
  readonly ownerInTemplate: string;
  /** Whether the administrator has the owner's rights, which it takes to grant others some. */
  readonly member: boolean;
  /** Everybody may use it and create in it, so that rights given by name add nothing. */
  readonly everybodys: boolean;
  readonly databaseOwner: string;
}

/**
 * What would not come back of the schema. Since PostgreSQL 15 it belongs to the database's owner, and a dump carries it all.
 *
 * @param client of the administrator, in the production database
 */
export async function findPublicSchemaBlockers(client: Client): Promise<string[]> {
  if ((await readServerMajor(client)) >= 15) return [];
  const { rows } = await client.query<PublicSchema>(
    // The bootstrap superuser has OID 10, and is pinned: that it owns something is written nowhere.
    `SELECT pg_get_userbyid(n.nspowner) AS "owner", pg_get_userbyid(coalesce(t.owner, 10)) AS "ownerInTemplate",
            pg_has_role(n.nspowner, 'USAGE') AS "member", pg_get_userbyid(d.datdba) AS "databaseOwner",
            (SELECT count(*) = 2 FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.grantee = 0)
              AND NOT EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.is_grantable) AS "everybodys"
     FROM pg_namespace n CROSS JOIN pg_database d
     LEFT JOIN LATERAL (
       SELECT s.refobjid AS owner FROM pg_shdepend s JOIN pg_database z ON z.oid = s.dbid AND z.datname = 'template0'
       WHERE s.classid = 'pg_namespace'::regclass AND s.objid = n.oid AND s.deptype = 'o') t ON true
     WHERE n.nspname = 'public' AND d.datname = current_database()`,
  );
  return rows.flatMap(findingsOf);
}

function findingsOf({ owner, ownerInTemplate, member, everybodys, databaseOwner }: PublicSchema): string[] {
  const change = (role: string): string => `ALTER SCHEMA public OWNER TO ${sqlName(role)}`;
  if (owner !== ownerInTemplate) {
    return [
      `schema public belongs to "${owner}", in a fresh database to "${ownerInTemplate}", and before PostgreSQL 15 no dump carries that: as a superuser in template0, which has to allow connections for it: ${change(owner)}`,
    ];
  }
  if (member || everybodys) return [];
  return [
    `rights on schema public could not be restored by the administrator, for before PostgreSQL 15 it belongs to "${owner}" and not to the database's owner: as a superuser here and in template0, which has to allow connections for it: ${change(databaseOwner)}; or use an administrator who is a superuser`,
  ];
}
