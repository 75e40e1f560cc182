/** The report's only style sheet: no fonts, images or scripts from anywhere, readable on a phone, in the dark and on paper. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ink: #1c2024; --dim: #5b636b; --paper: #ffffff; --card: #f5f6f7; --line: #d9dde1;
  --good: #1a7f37; --bad: #c4232c; --warn: #9a5b00; --link: #0b57a4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ec; --dim: #9aa4ad; --paper: #14171a; --card: #1e2226; --line: #353b41;
    --good: #4cc26a; --bad: #ff7b72; --warn: #e3a33c; --link: #7cb8ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: .5rem 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
h3 small, .dim { color: var(--dim); font-weight: normal; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, monospace; font-size: .88em; }
pre { overflow: auto; max-height: 24rem; margin: .4rem 0; padding: .6rem; background: var(--card); border-radius: 6px; white-space: pre-wrap; }
.verdict { padding: 1rem; border-left: .4rem solid var(--bad); border-radius: 6px; background: var(--card); }
.verdict p { margin: .3rem 0 0; }
.verdict .outcome { margin: 0; font-size: 1.2rem; font-weight: 700; color: var(--bad); }
.verdict.succeeded { border-color: var(--good); } .verdict.succeeded .outcome { color: var(--good); }
.verdict.aborted, .verdict.rolled-back, .verdict.restored { border-color: var(--warn); }
.verdict.aborted .outcome, .verdict.rolled-back .outcome, .verdict.restored .outcome { color: var(--warn); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1rem; margin: .6rem 0; }
dt { color: var(--dim); } dd { margin: 0; }
ul.plain { list-style: none; margin: 0; padding: 0; }
ul.plain > li { padding: .45rem 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.step { display: grid; grid-template-columns: 1.4rem 1fr max-content; gap: 0 .5rem; }
.step > div { grid-column: 2 / -1; }
.took { font-variant-numeric: tabular-nums; text-align: right; }
.bar { height: 3px; border-radius: 2px; background: var(--link); opacity: .6; }
.done { color: var(--good); } .failed, .open { color: var(--bad); } .stopped, .overruled, .kept, .engaged, .engaging { color: var(--warn); }
.wait { color: var(--dim); padding-left: 1.9rem !important; }
.found { margin: .1rem 0; font-size: .92em; }
.error { color: var(--bad); margin: .2rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; }
summary { cursor: pointer; color: var(--link); }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
  table, tbody, tr, td { display: block; } thead { display: none; }
  tr { padding: .4rem 0; border-bottom: 1px solid var(--line); } td { border: 0; padding: .1rem 0; }
  td[data-name]:not(:empty)::before { content: attr(data-name) ": "; color: var(--dim); }
}
@media print {
  :root { --ink: #000; --dim: #444; --paper: #fff; --card: #fff; --line: #bbb; --good: #000; --bad: #000; --warn: #000; --link: #000; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; }
  pre { max-height: none; border: 1px solid var(--line); }
  h2, h3 { break-after: avoid; }
}
`;
