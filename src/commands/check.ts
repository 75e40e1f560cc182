import { type Command, Option } from 'commander';
import type { SecretPolicy } from './check-profile.ts';
import { EXIT_CODES } from './command-error.ts';
import type { CommandContext } from './context.ts';

interface CheckOptions {
  readonly secrets: SecretPolicy;
  readonly format: 'text' | 'json';
  readonly json?: true;
}

export function addCheck(program: Command, { output, exit }: CommandContext): void {
  program
    .command('check')
    .description('read profiles as a run would: every finding, or what the profile says and which secrets resolve here')
    .argument('<profile...>', 'files named <service>.yaml, or folders of them')
    .addOption(
      new Option('--secrets <how>', 'references that do not resolve here are told, fail the check, or are not tried')
        .choices(['tell', 'require', 'skip'])
        .default('tell'),
    )
    .addOption(new Option('--format <format>', 'how to print it').choices(['text', 'json']).default('text'))
    .option('--json', 'the same as --format json')
    .addHelpText(
      'after',
      `
Neither Temporal nor a database is needed. The findings are those a run would be refused with. Secrets are resolved as a
worker does, by the profile's own commands, and never shown; a worker's machine may have other files and another environment,
so run it there too (with --secrets require), or in CI without secrets (--secrets skip, which runs no program).

Exit codes: 0 accepted, 1 a profile is refused or, with --secrets require, a secret does not resolve, 2 wrong usage,
130 interrupted.

Examples:
  runbook check config/services/whisper-transcriber.yaml
  runbook check config/services --secrets skip
  runbook check config/services --json | jq '.[] | select(.accepted | not) | .findings'`,
    )
    .action(async (paths: string[], options: CheckOptions) => {
      // The profile's schema is heavy: commands that only talk to Temporal do without.
      const { checkedText, checkProfile, hasUnresolved, profileFiles } = await import('./check-profile.ts');
      const isJson = options.json === true || options.format === 'json';
      const checked = [];
      for (const file of await profileFiles(paths)) {
        const one = await checkProfile(file, options.secrets, (done, of) =>
          output.replace(`${file}: resolving secrets, ${done} of ${of}`),
        );
        checked.push(one);
        if (!isJson) output.print(checkedText(one));
      }
      if (isJson) output.print(JSON.stringify(checked, null, 2));
      const refused = checked.filter(({ accepted }) => !accepted).length;
      if (refused > 0) output.note(`runbook: ${refused} of ${checked.length} profile(s) would be refused`);
      const unresolved = options.secrets === 'require' && checked.some(hasUnresolved);
      if (unresolved) output.note('runbook: not every secret resolves on this machine');
      if (refused > 0 || unresolved) exit(EXIT_CODES.refused);
    });
}
