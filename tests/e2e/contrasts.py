# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a browser is asked about the contrast of a page's text."""

# Text against the first opaque background behind it, as WCAG computes contrast.
CONTRASTS = """
const rgb = value => value.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const speaks = e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim());
return [...document.querySelectorAll('body *')].filter(speaks).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return [e.textContent.trim().slice(0, 40), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
  });
"""
