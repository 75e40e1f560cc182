import type { OutputStream } from '../process/options.ts';

/** Lines kept of a program's output for the archive; what is cut is said. */
const KEPT = 20_000;

export class BoundedLog {
  private readonly lines: string[] = [];
  private dropped = 0;

  add(stream: OutputStream, line: string): void {
    this.lines.push(`${new Date().toISOString()} ${stream}: ${line}`);
    if (this.lines.length > KEPT) {
      this.lines.shift();
      this.dropped += 1;
    }
  }

  get text(): string {
    const head = this.dropped > 0 ? `[${this.dropped} earlier lines were dropped]\n` : '';
    return `${head}${this.lines.join('\n')}\n`;
  }
}
