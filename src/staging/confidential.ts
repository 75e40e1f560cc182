/** Every value of the environments that could be a secret: names tell too little (DB_PWD, SIGNING_SALT ...). */
export const confidential = (...environments: readonly Readonly<Record<string, string>>[]): string[] =>
  environments.flatMap((environment) =>
    Object.entries(environment).flatMap(([name, value]) =>
      name === 'PATH' || value.length < 6 || HARMLESS.test(value) ? [] : [value],
    ),
  );

/** Switches, numbers, hosts and paths of this machine, levels: struck out they would make a log unreadable. */
const HARMLESS =
  /^(true|false|yes|no|on|off|\d{1,9}|localhost|[\d.]+(:\d+)?|debug|info|warning|error|production|staging|development|require|prefer|\/[\w./-]*)$/i;
