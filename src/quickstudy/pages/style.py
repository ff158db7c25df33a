"""The style sheet of all pages: system fonts, light and dark, for screens from a phone up."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1d2125; --soft: #545d66;
  --rule: #d9dee3;
  --panel: #f5f7f8; --ours: #1f5fa8; --floor: #8b949e; --chance: #c3cad1; --right: #176b33;
  --wrong: #ad1f17; --link: #1f5fa8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e9ec; --soft: #a4adb6; --rule: #343a41; --panel: #1c2024;
    --ours: #7fb2ec; --floor: #828c97; --chance: #525b65; --right: #6bcf8a; --wrong: #ff938a;
    --link: #8fbdf0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1, h2, h3, p, li, dd { overflow-wrap: anywhere; }
h1 { font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.2; margin: 0 0 .8rem;
  letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .6rem; }
p, ul, dl { max-width: 44rem; margin: 0 0 1rem; }
.lede { font-size: 1.2rem; line-height: 1.5; }
.soft, figcaption { color: var(--soft); font-size: .95rem; }
a { color: var(--link); }
figure { margin: 0 0 2rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17.5rem), 1fr));
  gap: 2rem 2.5rem; margin: 1.5rem 0; }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.panels figure { margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 14px; font-variant-numeric: tabular-nums; }
svg text.value { fill: var(--text); }
.grid { stroke: var(--rule); stroke-width: 1; }
.curve { fill: none; stroke: var(--ours); stroke-width: 1.8; stroke-linejoin: round; }
.dot { fill: var(--ours); }
.track { fill: var(--panel); } .ours { fill: var(--ours); } .floor { fill: var(--floor); }
.chance { fill: var(--chance); }
.whisker { fill: none; stroke: var(--text); stroke-width: 1.5; }
figcaption { margin: 0 0 .7rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .55rem 1rem .55rem 0;
  border-bottom: 1px solid var(--rule); }
thead th { font-size: .85rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 600; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--link); }
.whole { white-space: nowrap; }
.scroll { margin: 0 0 1.2rem; background:
  linear-gradient(90deg, var(--page) 30%, transparent) 0 0/2.4rem 100% no-repeat local,
  linear-gradient(270deg, var(--page) 30%, transparent) 100% 0/2.4rem 100% no-repeat local,
  linear-gradient(90deg, var(--rule), transparent) 0 0/.8rem 100% no-repeat scroll,
  linear-gradient(270deg, var(--rule), transparent) 100% 0/.8rem 100% no-repeat scroll; }
.scroll td { white-space: nowrap; }
.scroll td, .scroll th { font-size: .95rem; } .scroll tbody th { min-width: 8.5rem; }
.episode table { width: 100%; }
.episode tbody th { width: 7.5rem; overflow-wrap: anywhere; hyphens: auto; }
.episode small { display: block; font-weight: 400; color: var(--soft); font-size: .8rem;
  line-height: 1.3; }
.episode img { display: block; width: 44px; height: 44px; background: #fff;
  border: 1px solid var(--rule); border-radius: 4px; }
.support img { border: 2px solid var(--ours); width: 48px; height: 48px; }
.queries { display: flex; flex-wrap: wrap; gap: .5rem .9rem; }
.queries > span { font-size: .85rem; line-height: 1.35; min-width: 44px; }
.queries span span { display: block; margin-top: .15rem; font-weight: 600; }
.queries i { display: block; font-weight: 400; font-style: normal; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.wrong img { outline: 2px solid var(--wrong); outline-offset: 0; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px;
  padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5;
  margin: 0 0 1.2rem; }
code { font: .92em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 34rem) {
  .broad { overflow-x: auto; } .broad svg { min-width: 30rem; }
  .scroll td, .scroll th { padding-right: .6rem; font-size: .88rem; }
  .scroll tbody th { min-width: 6.5rem; }
  main { padding-top: 1.5rem; }
  .episode th, .episode td { padding-right: .6rem; }
  .episode tbody th { width: 4.6rem; } .episode img { width: 38px; height: 38px; }
  .support img { width: 42px; height: 42px; } .queries { gap: .45rem .6rem; }
  .queries > span { min-width: 38px; } }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""
